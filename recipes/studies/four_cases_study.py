"""Four-cases study: every policy in every case, and the advised policy against the best one."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from studies.regret import compare_with_best, summarise_cells
from transfer.advice import rule
from transfer.advice.evidence import AdviceEvidence
from transfer.backbones import registry
from transfer.config.checked import Config
from transfer.config.lists import CommaNames
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
from transfer.training.compare import correct_predictions
from transfer.training.setup import Images, read_images, split_images
from transfer.training.train import train

REFERENCE = "linear_probe"  # policy that the advice must at least equal
FEW_LABELS = 5  # labels per class and domain in the small case if no cases are named
RECORD_KEY = ("backbone", "case", "seed", "policy")

RecordKey = tuple[str, str, int, str]
Record = dict[str, Any]

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


@dataclass(frozen=True)
class FourCasesConfig(Config):
    """Four-cases study: run every policy in every case, and compare the advised one with the best."""

    train: TrainConfig = field(default_factory=TrainConfig)
    cases: CommaNames = ()
    """Data sets as for --data, with @N for N labels per class and domain, such as flowers12,neu_cls@5 (default: --data
    with 5 labels and with all)."""
    backbones: CommaNames = ()
    """Backbones to run all cases with (default: --backbone)."""
    policies: CommaNames = (
        "linear_probe",
        "head2toe",
        "stage_probes",
        "truncate:1",
        "truncate:2",
        "partial:1",
        "partial:2",
        "norm_only",
        "surgical:middle",
        "lp_ft:2",
        "lp_ft",
        "full",
        "gradual",
    )
    """Policies to run; linear_probe and the advised one are always included."""


def run_four_cases(config: FourCasesConfig) -> dict[str, Any]:
    """Advise on each backbone, case and seed, and run every policy there, including the advised one.

    Policies that train the backbone use the settings that the advice gives them, so that only the policy differs. A
    policy that a backbone cannot run is recorded with the reason.

    Returns
    -------
    dict
        ``records``: of policy ``auto`` the advice, its evidence and the test ``images``; of the others ``accuracy``,
        ``right`` (a digit for each test image) and ``seconds``, or ``failed``. ``cells``: by backbone and case the
        comparison of :func:`studies.regret.compare_with_best`, with the advised policy and expected accuracy by seed.
        ``summary`` of the cells; ``policies``, ``seeds``, ``command``, ``config``, ``versions``, ``seconds``. If
        `config` names a folder, each record is written to metrics.jsonl as soon as it is known.

    Raises
    ------
    TransferError
        Bad input; no test images; a folder that cannot be used.
    """
    started, base = time.perf_counter(), config.train
    policies = _check_config(config)
    names = tuple(dict.fromkeys(config.backbones))
    views = {"image_size": base.backbone.image_size, "crop": base.backbone.crop}
    networks = {n: BackboneConfig(n, **views) for n in names} or {base.backbone.backbone: base.backbone}
    texts = config.cases or (f"{base.data.data}@{FEW_LABELS}", base.data.data)
    data_by_case = {text: parse_case(text, base.data) for text in texts}
    seeds = tuple(dict.fromkeys(base.run.seeds or (base.run.seed,)))
    out = base.run.out
    folder = RunFolder(out, to_dict(config), overwrite=base.run.overwrite, resume=base.run.resume) if out else None
    records = {_record_key(record): record for record in folder.read_metrics(RECORD_KEY)} if folder else {}
    cache = TrunkCache(base.cache)
    # All sets are read first, so that an error in one shows before hours of training.
    sets = {data.data: data for data in data_by_case.values()}
    images = {name: read_images(data, cache.disk_cache) for name, data in sets.items()}
    cells = [(name, text) for name in networks for text in data_by_case]
    with tqdm(total=len(cells) * len(seeds), desc="cases", unit="seed", disable=None) as bar:
        for name, text, seed in ((*cell, seed) for cell in cells for seed in seeds):
            data = data_by_case[text]
            run_config = replace(base, data=data, backbone=networks[name], run=RunConfig(seed=seed))
            _fill_records(records, run_config, (name, text), policies, images[data.data], cache, folder)
            bar.update()
    summaries = [summarise_cell(name, text, seeds, policies, records) for name, text in cells]
    result = {
        "command": "cases",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - started, 3), "trunk": round(cache.seconds, 3)},
        "policies": policies,
        "seeds": list(seeds),
        "cells": summaries,
        "summary": summarise_cells(summaries),
        "records": list(records.values()),
    }
    if folder:
        folder.write_result(result)
    return result


def _fill_records(
    records: dict[RecordKey, Record],
    config: TrainConfig,
    cell: tuple[str, str],
    policies: list[str],
    images: Images,
    cache: TrunkCache,
    folder: RunFolder | None,
) -> None:
    """Add to `records`, and write to `folder`, those of one cell and seed that are missing."""

    def add(policy: str, values: Record) -> None:
        key = (*cell, config.run.seed, policy)
        records[key] = dict(zip(RECORD_KEY, key, strict=True)) | values
        if folder:
            folder.append_metrics(records[key])

    seed = config.run.seed
    if (*cell, seed, AUTO) not in records:
        add(AUTO, record_advice(config, images, cache))
    advice = records[*cell, seed, AUTO]
    for policy in dict.fromkeys([*policies, advice["advice"]["best"]["policy"]]):
        if (*cell, seed, policy) not in records:
            log.info("%s, %s, seed %d: %s", *cell, seed, policy)
            add(policy, train_and_record(apply_policy(config, policy, advice["labelled"]), images, cache))


def parse_case(text: str, data: DataConfig) -> DataConfig:
    """Return the data of a case: a set, or with ``@N`` only N labels per class and domain of it.

    Examples
    --------
    >>> few = parse_case("office31/dslr@3", DataConfig())
    >>> few.data, few.shots, parse_case("me@home", DataConfig()).data
    ('office31/dslr', 3, 'me@home')
    """
    name, _, shots = text.rpartition("@")
    if not shots.isdecimal():
        return replace(data, data=text)
    return replace(data, data=name, shots=int(shots)) if name else replace(data, data=text)


def record_advice(config: TrainConfig, images: Images, cache: TrunkCache) -> Record:
    """Return the advice for a run of `config`, its evidence, and the test images.

    Raises
    ------
    TransferError
        There are no test images.
    """
    table, data = images.table, config.data
    parts = split_images(images, data, config.run.seed)
    test = parts.test[table.object[parts.test] >= 0]
    if not len(test):
        raise TransferError(f"{table.name}: no test images to measure accuracy on: give --test a fraction")
    advised = advise_policy(config, images, parts, cache)
    names = ("advice", "similarity", "size", "probes", "neighbours", "seconds")
    evidence = {name: advised.record[name] for name in names}
    known = {"held_out": _record_held_out(advised.evidence), "slope": advised.evidence.slope}
    known["widths"] = list(advised.evidence.widths)
    paths = [str(path) for path in table.paths[test]]
    return {"labelled": advised.evidence.size.labelled} | evidence | known | {"images": paths}


def _record_held_out(evidence: AdviceEvidence) -> dict[str, str]:
    """Return for each cross-validated probe a digit for each image: whether it is classified correctly."""
    return {name: _to_digits(probe.predictions == evidence.labels) for name, probe in evidence.probes.items()}


def _to_digits(correct: np.ndarray) -> str:
    return "".join(str(int(value)) for value in correct)


def apply_policy(config: TrainConfig, policy: str, labelled: int) -> TrainConfig:
    """Return `config` with `policy`, under the settings that the advice gives it for this number of labelled images."""
    trains_backbone = FreezePolicy.parse(policy).trains_backbone
    learn = rule.make_fine_tuning_settings(rule.choose_epochs(labelled)) if trains_backbone else {}
    return replace(
        config,
        policy=replace(config.policy, policy=policy),
        learn=replace(config.learn, **learn),  # type: ignore[arg-type]
    )


def train_and_record(config: TrainConfig, images: Images, cache: TrunkCache) -> Record:
    """Return the accuracy of a run, or the reason why it failed."""
    try:
        run = train(config, images=images, cache=cache)
    except TransferError as error:
        log.info("failed: %s", error)
        return {"failed": str(error)}
    correct, _ = correct_predictions(run, "object")
    return {
        "accuracy": float(correct.mean()),
        "right": _to_digits(correct),
        "seconds": run.result["seconds"]["total"],
    }


def summarise_cell(
    backbone: str,
    case: str,
    seeds: tuple[int, ...],
    policies: list[str],
    records: Mapping[RecordKey, Record],
) -> dict[str, Any]:
    """Return the comparison of the advised policies with the best ones, for one backbone and case."""
    advice = [records[backbone, case, seed, AUTO] for seed in seeds]
    best = [record["advice"]["best"] for record in advice]
    advised = [candidate["policy"] for candidate in best]

    def read_correct(policy: str, seed: int) -> np.ndarray | None:
        digits = records.get((backbone, case, seed, policy), {}).get("right")
        return None if digits is None else np.array([int(digit) for digit in digits])

    correct = {p: [read_correct(p, seed) for seed in seeds] for p in dict.fromkeys([*policies, *advised])}
    images = [np.array(record["images"]) for record in advice]
    comparison = compare_with_best(correct, advised, images, policies, REFERENCE)
    within = [
        None if accuracy is None else is_within_expectation(candidate, accuracy, len(paths))
        for candidate, accuracy, paths in zip(best, comparison["accuracy"], images, strict=True)
    ]
    return {
        "backbone": backbone,
        "case": case,
        "size": [record["advice"]["size"] for record in advice],
        "kind": [record["advice"]["kind"] for record in advice],
        "advised": advised,
        "expected": [candidate["accuracy"] for candidate in best],
        "interval": [candidate["interval"] for candidate in best],
        "within": within,
    } | comparison


def is_within_expectation(candidate: dict[str, Any], accuracy: float, images: int) -> bool:
    """Return whether the `accuracy` on a number of test `images` lies in the 95 % interval of the expected accuracy.

    The interval combines the standard deviation of the expectation with the sampling error of the test images.

    Examples
    --------
    >>> expected = {"accuracy": 0.9, "sd": 0.01}
    >>> is_within_expectation(expected, 0.85, 100), is_within_expectation(expected, 0.85, 10_000)
    (True, False)
    """
    expected = candidate["accuracy"]
    sampling_variance = expected * (1 - expected) / images
    return abs(accuracy - expected) <= Z_95 * sqrt(candidate["sd"] ** 2 + sampling_variance)


def _record_key(record: Record) -> RecordKey:
    return record["backbone"], record["case"], record["seed"], record["policy"]


def _check_config(config: FourCasesConfig) -> list[str]:
    """Return the policies to run, each once; raise on bad options before any image is read."""
    base = config.train
    if base.data.shots or base.policy.policy != PolicyConfig().policy:
        raise TransferError(
            "the study varies labels and policies: give --cases DATA@LABELS not --shots, and --policies not --policy"
        )
    if config.cases and base.data.data != DataConfig().data:
        raise TransferError("--cases names the data: leave --data out")
    if config.backbones and base.backbone != BackboneConfig(
        image_size=base.backbone.image_size, crop=base.backbone.crop
    ):
        raise TransferError("--backbones names the networks: leave --backbone, --weights and --random-init out")
    settings = rule.make_fine_tuning_settings(1)
    changed = [name for name in settings if getattr(base.learn, name) != getattr(LearnConfig(), name)]
    if changed:
        option = changed[0].replace("_", "-")
        raise TransferError(f"--{option}: every policy has the settings of the advice; leave the option out")
    policies = [FreezePolicy.parse(text) for text in config.policies]
    if any(policy.advised for policy in policies):
        raise TransferError(f"--policies: {AUTO} is compared with the others in any case; leave it out")
    optimizers.check_optimizer(base.learn.optimizer)
    for name in config.backbones:
        registry.resolve(name)
    return list(dict.fromkeys([REFERENCE, *map(str, policies)]))
