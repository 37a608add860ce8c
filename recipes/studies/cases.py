"""Advice held against the truth: every policy in every case, what was advised beside what was best."""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
from tqdm import tqdm

from studies import regret
from transfer.advice import rule
from transfer.backbones import registry
from transfer.config.commands import CasesConfig
from transfer.config.serialise import to_dict
from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.heads.metrics import Z_95
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions
from transfer.training import optimizers
from transfer.training.auto_policy import AUTO, advise_policy
from transfer.training.compare import rights
from transfer.training.setup import Images, read_images, split_images
from transfer.training.train import train

PROBE = "linear_probe"  # what all advice must be at least as good as
FEW = 5  # labels, of the small one of the cases where none are named
KEY = ("backbone", "case", "seed", "policy")

Key = tuple[str, str, int, str]
Record = dict[str, Any]

log = logging.getLogger(f"transfer.{__name__}")  # printed as the lines of the command are


def cases(config: CasesConfig) -> dict[str, Any]:
    """Advise on each backbone, case and seed, and run every policy there, the advised one included.

    Policies with a backbone that learns have the settings that advice would give them, so that nothing but the policy
    differs. What a backbone cannot do is recorded with its reason.

    Returns
    -------
    dict
        ``records``, each as soon as it is known a line of metrics.jsonl where `config` names a folder: of policy
        ``auto`` the advice, what it stands on and the test ``images``, of others ``accuracy``, ``right`` (a digit for
        each test image) and ``seconds``, or ``failed``. ``cells``, by backbone and case what
        :func:`studies.regret.judge` says, with what was advised and expected by seed; their ``summary``;
        ``policies``, ``seeds``, ``command``, ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; no test images; a folder that cannot be used.
    """
    began, base = time.perf_counter(), config.train
    policies = _checked(config)
    names = tuple(dict.fromkeys(config.backbones))
    networks = {n: BackboneConfig(n, image_size=base.backbone.image_size) for n in names} or {
        base.backbone.backbone: base.backbone
    }
    texts = config.cases or (f"{base.data.data}@{FEW}", base.data.data)
    asked = {text: case(text, base.data) for text in texts}
    seeds = tuple(dict.fromkeys(base.run.seeds or (base.run.seed,)))
    out = base.run.out
    folder = RunFolder(out, to_dict(config), overwrite=base.run.overwrite, resume=base.run.resume) if out else None
    records = {_key(record): record for record in folder.read_metrics(KEY)} if folder else {}
    cache = TrunkCache(base.cache)
    # All at once: what is wrong with a set is said before hours have passed.
    sets = {data.data: data for data in asked.values()}
    images = {name: read_images(data, cache.disk_cache) for name, data in sets.items()}

    def tell(key: Key, found: Record) -> None:
        records[key] = dict(zip(KEY, key, strict=True)) | found
        if folder:
            folder.append_metrics(records[key])

    cells = [(name, text) for name in networks for text in asked]
    with tqdm(total=len(cells) * len(seeds), desc="cases", unit="seed", disable=None) as bar:
        for name, text, seed in ((*cell, seed) for cell in cells for seed in seeds):
            one = replace(base, data=asked[text], backbone=networks[name], run=RunConfig(seed=seed))
            some = images[one.data.data]
            if (name, text, seed, AUTO) not in records:
                tell((name, text, seed, AUTO), advice(one, some, cache))
            told = records[name, text, seed, AUTO]
            for policy in dict.fromkeys([*policies, told["advice"]["best"]["policy"]]):
                if (name, text, seed, policy) not in records:
                    log.info("%s, %s, seed %d: %s", name, text, seed, policy)
                    found = carried_out(settled(one, policy, told["labelled"]), some, cache)
                    tell((name, text, seed, policy), found)
            bar.update()
    judged = [cell(name, text, seeds, policies, records) for name, text in cells]
    result = {
        "command": "cases",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - began, 3), "trunk": round(cache.seconds, 3)},
        "policies": policies,
        "seeds": list(seeds),
        "cells": judged,
        "summary": regret.summary(judged),
        "records": list(records.values()),
    }
    if folder:
        folder.write_result(result)
    return result


def case(text: str, data: DataConfig) -> DataConfig:
    """Return which images a case is about: a set, or so many of its labels.

    Examples
    --------
    >>> few = case("office31/dslr@3", DataConfig())
    >>> few.data, few.shots, case("me@home", DataConfig()).data
    ('office31/dslr', 3, 'me@home')
    """
    name, _, shots = text.rpartition("@")
    if not shots.isdecimal():
        return replace(data, data=text)
    return replace(data, data=name, shots=int(shots)) if name else replace(data, data=text)


def advice(config: TrainConfig, images: Images, cache: TrunkCache) -> Record:
    """Return what is advised for a run of `config`, what that stands on, and the test images.

    Raises
    ------
    TransferError
        There are none.
    """
    table, data = images.table, config.data
    parts = split_images(images, data, config.run.seed)
    test = parts.test[table.object[parts.test] >= 0]
    if not len(test):
        raise TransferError(f"{table.name}: no test images to measure accuracy on: give --test a fraction")
    told = advise_policy(config, images, parts, cache)
    kept = {name: told.record[name] for name in ("advice", "similarity", "size", "probes", "seconds")}
    return {"labelled": told.evidence.size.labelled} | kept | {"images": [str(path) for path in table.paths[test]]}


def settled(config: TrainConfig, policy: str, labelled: int) -> TrainConfig:
    """Return `config` with a policy, under the settings that advice would give it with so many labelled images."""
    trains_backbone = FreezePolicy.parse(policy).trains_backbone
    learn = rule.make_fine_tuning_settings(rule.choose_epochs(labelled)) if trains_backbone else {}
    return replace(
        config,
        policy=replace(config.policy, policy=policy),
        learn=replace(config.learn, **learn),  # type: ignore[arg-type]
    )


def carried_out(config: TrainConfig, images: Images, cache: TrunkCache) -> Record:
    """Return how good a run is, or why there can be none."""
    try:
        run = train(config, images=images, cache=cache)
    except TransferError as error:
        log.info("cannot be done: %s", error)
        return {"failed": str(error)}
    right, _ = rights(run, "object")
    return {
        "accuracy": float(right.mean()),
        "right": "".join(str(int(value)) for value in right),
        "seconds": run.result["seconds"]["total"],
    }


def cell(
    backbone: str, text: str, seeds: tuple[int, ...], policies: list[str], records: dict[Key, Record]
) -> dict[str, Any]:
    """Return what advice was worth with one backbone in one case."""
    told = [records[backbone, text, seed, AUTO] for seed in seeds]
    best = [one["advice"]["best"] for one in told]
    chosen = [one["policy"] for one in best]

    def right(policy: str) -> Iterator[np.ndarray | None]:
        for seed in seeds:
            digits = records.get((backbone, text, seed, policy), {}).get("right")
            yield None if digits is None else np.array([int(digit) for digit in digits])

    by = {policy: list(right(policy)) for policy in dict.fromkeys([*policies, *chosen])}
    judged = regret.judge(by, chosen, [np.array(one["images"]) for one in told], policies, PROBE)
    within = [
        None if reached is None else as_expected(one["advice"]["best"], reached, len(one["images"]))
        for one, reached in zip(told, judged["accuracy"], strict=True)
    ]
    return {
        "backbone": backbone,
        "case": text,
        "size": [one["advice"]["size"] for one in told],
        "kind": [one["advice"]["kind"] for one in told],
        "advised": chosen,
        "expected": [one["accuracy"] for one in best],
        "interval": [one["interval"] for one in best],
        "within": within,
    } | judged


def as_expected(candidate: dict[str, Any], reached: float, images: int) -> bool:
    """Return whether an accuracy `reached` on so many test images is one that 95 % of such draws would have.

    The expectation has its own standard deviation, and the draw of the images adds one.

    Examples
    --------
    >>> as_expected({"accuracy": 0.9, "sd": 0.01}, 0.85, 100), as_expected({"accuracy": 0.9, "sd": 0.01}, 0.85, 10_000)
    (True, False)
    """
    expected = candidate["accuracy"]
    drawn = expected * (1 - expected) / images
    return abs(reached - expected) <= Z_95 * sqrt(candidate["sd"] ** 2 + drawn)


def _key(record: Record) -> Key:
    return record["backbone"], record["case"], record["seed"], record["policy"]


def _checked(config: CasesConfig) -> list[str]:
    """Return the policies to run, each once, after all that can be refused before anything is read."""
    base = config.train
    if base.data.shots or base.policy.policy != PolicyConfig().policy:
        raise TransferError("several of each are compared: --cases DATA@LABELS not --shots, --policies not --policy")
    if config.cases and base.data.data != DataConfig().data:
        raise TransferError("--cases says which data: leave --data out")
    if config.backbones and base.backbone != BackboneConfig(image_size=base.backbone.image_size):
        raise TransferError("--backbones says which networks: leave --backbone, --weights and --random-init out")
    settings = rule.make_fine_tuning_settings(1)
    own = [name for name in settings if getattr(base.learn, name) != getattr(LearnConfig(), name)]
    if own:
        raise TransferError(f"--{own[0].replace('_', '-')}: every policy has the settings of advice; leave it out")
    policies = [FreezePolicy.parse(text) for text in config.policies]
    if any(policy.advised for policy in policies):
        raise TransferError(f"--policies: {AUTO} is what the others are held against; leave it out")
    optimizers.check(base.learn.optimizer)
    for name in config.backbones:
        registry.resolve(name)
    return list(dict.fromkeys([PROBE, *map(str, policies)]))
