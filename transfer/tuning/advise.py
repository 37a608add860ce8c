"""`transfer advise`: which of the four cases a data set is, which policy suits it, its costs, and the reasons."""

import time
from dataclasses import replace
from typing import Any

from transfer.advice.requirements import LINEAR_PROBE
from transfer.backbones import registry, weight_paths
from transfer.backbones.weight_packages import find_weight_package
from transfer.config.commands import AdviseConfig
from transfer.config.serialise import to_dict
from transfer.config.shared import RunConfig
from transfer.config.train import PolicyConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runs.facts import count_split, describe_images, list_left_out
from transfer.runs.folder import ADVICE_FILE, RunFolder, refuse_resume
from transfer.runtime import distributed
from transfer.runtime.device import get_versions
from transfer.runtime.files import write_json
from transfer.training.auto_policy import PolicyAdvice, advise_policy, apply_advice, make_advised_config
from transfer.training.setup import read_images, split_images
from transfer.training.train import train
from transfer.tuning.budget import select_affordable
from transfer.tuning.other_backbones import compare_other_backbones, use_other_backbone
from transfer.tuning.rank_backbones import RatedBackbone, order_backbones, rank_backbones


def advise(config: AdviseConfig) -> dict[str, Any]:
    """Measure, advise, write advice.json and, with ``--run``, train as advised.

    Returns
    -------
    dict
        As in advice.json: for the best backbone ``advice``, ``size``, ``similarity``, ``probes`` and more;
        ``backbones``, see :func:`~transfer.tuning.rank_backbones.rank_backbones`; ``others``, see
        :func:`~transfer.tuning.other_backbones.compare_other_backbones`; ``recommended``, the config of the run that
        carries the advice out, with a better backbone where there is one, and ``as_requested``, without it; ``run``,
        the result of :func:`transfer.training.train.train`, or None; ``notes``, ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Invalid input; several seeds; no weights for any backbone, or explicit weights for several; every backbone is
        over the budget; an unusable run folder.
    """
    start = time.perf_counter()
    base = config.train
    if base.policy != PolicyConfig():
        raise TransferError("advise chooses the policy: leave --policy and its learning rates out")
    if base.run.seeds:
        raise TransferError("--seeds: advice is for one split; give one --seed, or use `transfer train --policy auto`")
    if config.backbones and (base.backbone.weights or base.backbone.random_init):
        raise TransferError("--backbones uses the stored weights of each: leave --weights and --random-init out")
    names, notes = _select_available(config.backbones)
    out = base.run.out
    refuse_resume(base.run, "advise")
    folder = None
    if out and distributed.is_rank_zero():
        folder = RunFolder(out, to_dict(config), overwrite=base.run.overwrite, later=True)
    cache = TrunkCache(base.cache)
    images = read_images(base.data, cache.disk_cache)
    parts = split_images(images, base.data, base.run.seed)
    images = images.hide(parts.rest)
    images.facts.log(describe_images(images.table, count_split(parts), out is not None))
    candidates = {name: replace(base.backbone, backbone=name) for name in names or (base.backbone.backbone,)}
    if config.budget is not None:
        candidates, slow = select_affordable(candidates, len(images.table), config.budget, base.learn.device)
        notes += slow
    ranked = rank_backbones(base, candidates, images, parts, cache) if len(candidates) > 1 else []
    chosen = replace(base, backbone=candidates[ranked[0]["name"]] if ranked else next(iter(candidates.values())))
    best = advise_policy(chosen, images, parts, cache)
    result = {"command": "advise", "config": to_dict(config), "versions": get_versions()} | best.record
    result["backbones"] = ranked or [_describe_alone(chosen.backbone.backbone, best)]
    others = [] if names else compare_other_backbones(base, best, images, cache)
    result["others"] = others
    better = next((row["name"] for row in others if row["better"]), None)
    advised = make_advised_config(
        replace(chosen, run=replace(base.run, out=RunConfig().out, overwrite=False)), best.advice
    )
    result["recommended"] = to_dict(use_other_backbone(advised, better) if better else advised)
    result["as_requested"] = to_dict(advised)
    result["notes"] = [*notes, *images.table.notes, *parts.notes]
    result["seconds"] = {"total": round(time.perf_counter() - start, 3), "trunk": round(cache.seconds, 3)}
    if folder:
        folder.start()
        folder.write_left_out(list_left_out(images.table))
        write_json(folder.path / ADVICE_FILE, result)
    run = None
    if config.run:
        inner = replace(base.run, out=out / "run" if out else None, overwrite=True)
        run = train(replace(apply_advice(chosen, best.advice), run=inner), images=images, cache=cache).result
        if folder:
            write_json(folder.path / ADVICE_FILE, result | {"run": run})
    return result | {"run": run}


def _describe_alone(name: str, found: PolicyAdvice) -> dict[str, Any]:
    """Return the row of a backbone that was compared with no other, as :func:`rank_backbones` gives it."""
    rated = RatedBackbone(name, found.evidence.probes[LINEAR_PROBE], found.evidence.transferability.logme)
    return order_backbones([rated], found.evidence.labels)[0]


def _select_available(names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return those of `names` whose weights are on this machine, and a note on the others.

    Raises
    ------
    TransferError
        A name that no provider knows, or no weights for any.
    """
    folder = weight_paths.find_store()
    available: list[str] = []
    missing: list[str] = []
    for name in dict.fromkeys(names):
        provider, full = registry.resolve(name)
        source, package = provider.source(full), find_weight_package(full)
        stored = (
            weight_paths.find_store_file(full, folder)
            or provider.local_file(full)
            or (package and package.installed)
            or (source and weight_paths.is_in_hub_cache(source))
        )
        (available if stored else missing).append(name)
    if missing and not available:
        raise TransferError(
            f"--backbones: no stored weights for {', '.join(missing)}; `transfer backbones` shows where to put them"
        )
    return tuple(available), [f"no stored weights for {', '.join(missing)}: not ranked"] if missing else []
