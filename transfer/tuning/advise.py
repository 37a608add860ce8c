"""`transfer advise`: which of the four cases a set of images is, which policy suits it, what it costs, and why."""

import time
from dataclasses import replace
from typing import Any

from transfer.backbones import registry, weight_files
from transfer.config.commands import AdviseConfig
from transfer.config.serialise import to_dict
from transfer.config.train import BackboneConfig, PolicyConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runs.folder import ADVICE, RunFolder, refuse_resume
from transfer.runtime import distributed
from transfer.runtime.files import write_json
from transfer.training.auto_policy import PolicyAdvice, advise_policy, apply_advice
from transfer.training.setup import read_images, split_images, versions
from transfer.training.train import train


def advise(config: AdviseConfig) -> dict[str, Any]:
    """Measure, advise, write advice.json, and, if asked to, carry the advice out.

    Returns
    -------
    dict
        As in advice.json: of the best backbone ``advice``, ``size``, ``similarity``, ``probes`` and more;
        ``backbones``, a line for each that was asked for, best first; ``run``, the result of
        :func:`transfer.training.train.train`, or None; ``notes``, ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; several seeds; no weights for any backbone, or other weights for several; a run folder that cannot
        be used.
    """
    began = time.perf_counter()
    one = config.train
    if one.policy != PolicyConfig():
        raise TransferError("advise finds the policy itself: leave --policy and its rates out")
    if one.run.seeds:
        raise TransferError("--seeds: advice is about one split; take one --seed, or `transfer train --policy auto`")
    if config.backbones and (one.backbone.weights or one.backbone.random_init):
        raise TransferError("--backbones takes the weights at hand for each: leave --weights and --random-init out")
    names, notes = _at_hand(config.backbones)
    out = one.run.out
    refuse_resume(one.run, "advise")
    folder = None
    if out and distributed.first():
        folder = RunFolder(out, to_dict(config), overwrite=one.run.overwrite, later=True)
    cache = TrunkCache(one.cache)
    images = read_images(one.data, cache.store)
    parts = split_images(images, one.data, one.run.seed)
    found: dict[str, PolicyAdvice] = {}
    for name in names or (one.backbone.backbone,):
        backbone = BackboneConfig(name, image_size=one.backbone.image_size) if names else one.backbone
        found[name] = advise_policy(replace(one, backbone=backbone), images, parts, cache)
    order = sorted(found, key=lambda name: found[name].advice.best.accuracy, reverse=True)
    best = found[order[0]]
    chosen = replace(one, backbone=replace(one.backbone, backbone=order[0])) if names else one
    result = {"command": "advise", "config": to_dict(config), "versions": versions()} | best.record
    result["backbones"] = [_line(name, found[name]) for name in order]
    result["notes"] = [*notes, *images.table.notes, *parts.notes]
    result["seconds"] = {"total": round(time.perf_counter() - began, 3), "trunk": round(cache.seconds, 3)}
    if folder:
        folder.start()
        write_json(folder.path / ADVICE, result)
    run = None
    if config.run:
        inner = replace(one.run, out=out / "run" if out else None, overwrite=True)
        run = train(replace(apply_advice(chosen, best.advice), run=inner), images=images, cache=cache).result
        if folder:
            write_json(folder.path / ADVICE, result | {"run": run})
    return result | {"run": run}


def _line(name: str, advised: PolicyAdvice) -> dict[str, Any]:
    best, probe = advised.advice.best, advised.evidence.probes["linear_probe"]
    return {
        "name": name,
        "logme": advised.evidence.transferability.logme,
        "linear_probe": probe.accuracy,
        "policy": best.policy,
        "accuracy": best.accuracy,
        "interval": list(best.interval),
        "seconds": best.seconds,
        "look": advised.record["costs"]["look"],
    }


def _at_hand(names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return which of `names` have weights here, and a note on the others.

    Raises
    ------
    TransferError
        A name that no provider knows, or no weights for any.
    """
    folder = weight_files.store_folder()
    here: list[str] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        provider, full = registry.resolve(name)
        source = provider.source(full)
        there = (
            weight_files.store_file(full, folder)
            or weight_files.bundle_file(full)
            or (source and weight_files.hub_cached(source))
        )
        (here if there else missing).append(name)
    if missing and not here:
        raise TransferError(
            f"--backbones: no weights at hand for {', '.join(missing)}; `transfer backbones` says where each one's lie"
        )
    return tuple(here), [f"no weights at hand for {', '.join(missing)}: not ranked"] if missing else []
