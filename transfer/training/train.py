"""`transfer train`: images, a backbone, a policy and heads -> a run with its result."""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.config.serialise import to_dict
from transfer.config.train import TrainConfig
from transfer.data.splits import Splits
from transfer.data.table import ImageTable
from transfer.errors import EndedEarly
from transfer.evaluation.ensemble import TestSet, average_predictions, load_snapshots
from transfer.evaluation.predictions import Predictions, evaluate_domains, evaluate_predictions, prediction_rows
from transfer.evaluation.report_data import InitialWeights, build_report_data, features_before_and_after
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.model import TransferModel
from transfer.probes.head2toe import count_selected_features
from transfer.runs import checkpoint
from transfer.runs.folder import RunFolder
from transfer.runs.seeds import class_balance, merge_seeds
from transfer.runs.states import PartStates, RunStates
from transfer.runtime import distributed
from transfer.runtime.device import get_versions, pick_device
from transfer.runtime.signals import defer_stop_signals
from transfer.training import monitor, optimizers
from transfer.training.auto_policy import advise_policy, apply_advice
from transfer.training.epoch import TrainingData
from transfer.training.fit import FitResult, fit
from transfer.training.log_lines import epoch_line, in_parts, in_words
from transfer.training.resume import RunInputs
from transfer.training.setup import Images, head_specs, new_model, read_images, split_images

OnEpoch = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


@dataclass
class TrainRun:
    """What `train` gives back.

    Parameters
    ----------
    result : dict
        As in result.json.
    models : dict of str to TransferModel
        Of the first seed; ``models[""]`` unless heads are separate.
    tests : list of (ImageTable, Predictions)
        For each seed the test images and the answers on them.
    """

    result: dict[str, Any]
    models: checkpoint.Models
    tests: list[tuple[ImageTable, Predictions]]


def train(
    config: TrainConfig,
    *,
    images: Images | None = None,
    cache: TrunkCache | None = None,
    backbone: Backbone | None = None,
    on_epoch: OnEpoch = lambda line: None,
) -> TrainRun:
    """Train as `config` says and write its run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        Already read with :func:`read_images`, to save reading them again.
    cache : TrunkCache, optional
        Shared between runs, so that what their frozen trunks have in common is computed once.
    backbone : Backbone, optional
        Start from a copy of this network, such as another run's, rather than from the one that `config` names.
    on_epoch : callable
        Gets each epoch's line, as in metrics.jsonl.

    Raises
    ------
    TransferError
        Bad input; :class:`~transfer.errors.EndedEarly`, a loss that turned NaN (after everything is saved).
    """
    FreezePolicy.parse(config.policy.policy)
    optimizers.check(config.learn.optimizer)
    out = config.run.out
    how: Any = {"overwrite": config.run.overwrite, "resume": config.run.resume, "tensorboard": config.run.tensorboard}
    folder = RunFolder(out, to_dict(config), later=True, **how) if out and distributed.is_rank_zero() else None
    if folder and folder.finished_result:
        log.info("the run in %s is finished; there is nothing to go on with", out)
    cache = cache or TrunkCache(config.cache)
    with folder or nullcontext():
        images = images or read_images(config.data, cache.store)
        run = _over_seeds(config, images, cache, folder, backbone, on_epoch)
    if run.result["stopped"]:
        raise EndedEarly(run.result["stopped"] + (f" (saved in {out})" if out else ""))
    return run


def _over_seeds(
    config: TrainConfig,
    images: Images,
    cache: TrunkCache,
    folder: RunFolder | None,
    backbone: Backbone | None,
    on_epoch: OnEpoch,
) -> TrainRun:
    out, seeds = config.run.out, config.run.seeds or (config.run.seed,)
    if len(seeds) == 1:
        one = replace(config, run=replace(config.run, seed=seeds[0]))
        return _train_once(one, images, cache, folder, backbone, on_epoch)
    runs = []
    for seed in seeds:
        log.info("seed %d", seed)
        inner = out / f"seed{seed}" if out else None
        shown = config.run.report and seed == seeds[0]
        one = replace(config, run=replace(config.run, seed=seed, seeds=(), out=inner, report=shown))
        part = folder.inner(f"seed{seed}", to_dict(one)) if folder else None

        def tell(line: dict[str, Any], seed: int = seed) -> None:
            on_epoch({"seed": seed} | line)

        runs.append(_train_once(one, images, cache, part, backbone, tell))
    merged = merge_seeds(seeds, [run.result for run in runs]) | {"config": to_dict(config)}
    if folder and not folder.finished_result:
        folder.merge_inner_runs([folder.path / f"seed{seed}" for seed in seeds])
        folder.write_result(merged)
    tests = [test for run in runs for test in run.tests]
    return TrainRun((folder and folder.finished_result) or merged, runs[0].models, tests)


def _train_once(
    config: TrainConfig,
    images: Images,
    cache: TrunkCache,
    folder: RunFolder | None,
    start: Backbone | None,
    on_epoch: OnEpoch,
) -> TrainRun:
    began, trunk_before = time.perf_counter(), cache.seconds
    table, inspection, seed = images.table, images.inspection, config.run.seed
    parts = split_images(images, config.data, seed)
    if done := distributed.broadcast(folder.finished_result if folder else None):
        return _finished(config, done, images, parts, cache)
    told = advise_policy(config, images, parts, cache) if FreezePolicy.parse(config.policy.policy).advised else None
    asked, config = config, apply_advice(config, told.advice) if told else config
    specs, notes = head_specs(table, parts, config.heads)
    notes += ["the backbone starts as another run left it"] if start else []
    data = TrainingData(table, inspection.sha256, parts.train, parts.val)
    device = pick_device(config.learn.device)
    models: checkpoint.Models = {}
    starts: dict[str, InitialWeights] = {}
    plans: list[FreezePlan] = []
    fits: dict[str, FitResult] = {}
    lines: list[dict[str, Any]] = []
    states = None
    if config.run.out:
        minutes, resumed = config.run.checkpoint_minutes, distributed.broadcast(bool(folder and folder.resumed))
        states = RunStates(config.run.out, minutes, begin=folder.start if folder else None, resumed=resumed)
    if folder:
        folder.reset_metrics()
    for part, some in specs.items():
        policy = FreezePolicy.parse(config.policy.policy)
        backbone = freeze.reshape_backbone(copy.deepcopy(start), policy) if start else None
        model, plan = new_model(config, some, seed, device, backbone)
        if not plans:
            log.info("%s", plan)
        if config.run.out and config.run.report:
            starts[part] = InitialWeights(model, plan)

        def tell(line: dict[str, Any], part: str = part) -> None:
            line = ({"network": part} if part else {}) | line
            log.info("%s", epoch_line(line))
            if folder:
                folder.append_metrics(line)
            lines.append(line)
            on_epoch(line)

        if states and not fits:
            states.of(RunInputs(config.backbone.backbone, model, parts, table.paths, inspection.sha256))
        with defer_stop_signals() if states else nullcontext():
            numbers = 2 * len(fits), 2 * len(fits) + 1
            own = [states.part(number) for number in numbers] if states else [None, None]
            fits[part] = _fit(model, plan, data, config, cache, tell, own)
        models[part] = model
        plans.append(plan)
    if folder:
        folder.start()  # a run that stopped at once has no line
    seen = monitor.watch(lines)
    for sentence in seen:
        log.info("%s", sentence)
    batch, workers = config.learn.batch_size or len(parts.train), config.learn.workers
    test_set = TestSet(table, inspection.sha256, parts.test, cache, config.view, batch, workers)
    answers = test_set.predict(models) if len(parts.test) else {}
    ends = []
    for member in load_snapshots(models, {part: f.snapshots for part, f in fits.items()}):
        ends.append(test_set.predict(member) if len(parts.test) else {})
        if folder:
            checkpoint.save(folder.path / f"snapshot{len(ends)}.safetensors", member, config.heads)
    test = table.take(parts.test)
    needed = [f.parts if f.parts > config.learn.accumulate else 1 for f in fits.values()]
    backbone = next(iter(models.values())).backbone
    kept = {name: some for model in models.values() for name, some in count_selected_features(model).items()}
    heads = sum(int(p.count_nonzero()) if kept else p.numel() for m in models.values() for p in m.heads.parameters())
    trunk, total = cache.seconds - trunk_before, time.perf_counter() - began
    result = {
        "command": "train",
        "config": to_dict(asked),
        "versions": get_versions(),
        "seconds": {"total": round(total, 3), "trunk": round(trunk, 3), "train": round(total - trunk, 3)},
        "backbone": {"name": backbone.name, "weights": backbone.weights, "width": backbone.width},
        "policy": {
            "name": str(plans[0].policy),
            "trained_parameters": sum(plan.trained_parameters for plan in plans) + heads,
            "frozen_parameters": sum(plan.frozen_parameters for plan in plans),
            "frozen_unchanged": not any(f.moved for f in fits.values()),
            "moved": sorted({name for f in fits.values() for name in f.moved}),
            **({"dropped": plans[0].dropped} if plans[0].dropped else {}),
            **({"kept": kept} if kept else {}),
            "optimizer_bytes": sum(f.optimizer_bytes for f in fits.values()),
            "heads_parameters": heads,
            "phases": to_dict(plans[0].phases),
        },
        "images": {
            "train": len(parts.train),
            "val": len(parts.val),
            "test": len(parts.test),
            **class_balance(table, parts),
        },
        "test": evaluate_predictions(test, answers) if len(test) else {},
        "per_domain": evaluate_domains(test, answers) if len(test) else {},
        **(
            {"snapshots": {"n": len(ends), "test": evaluate_predictions(test, average_predictions(ends))}}
            if ends and len(test)
            else {}
        ),
        **({"advice": told.record} if told else {}),
        "epochs": {part or "model": f.best for part, f in fits.items()},
        "monitor": seen,
        "stopped": "; ".join(f.stopped for f in fits.values() if f.stopped),
        "notes": [
            *table.notes,
            *parts.notes,
            *notes,
            *in_parts(needed, batch),
        ],
    }
    shown = next(part for part, model in models.items() if "object" in model.heads.specs)
    model, moments = models[shown], []
    if starts and len(test):  # in all processes, which compute features together
        feed = cache.feed(model, table.paths, inspection.sha256, batch_size=batch, workers=workers)
        moments = features_before_and_after(starts[shown], model, feed, table, parts.test)
    if folder:
        checkpoint.save(folder.path / "model.safetensors", models, config.heads)
        folder.write_predictions(prediction_rows(test, answers))
        if moments:
            folder.write_report_data(build_report_data(test, answers, model, moments, table.domains, workers))
        folder.write_result(result)
    return TrainRun(result, models, [(test, answers)])


def _fit(
    model: TransferModel,
    plan: FreezePlan,
    data: TrainingData,
    config: TrainConfig,
    cache: TrunkCache,
    on_epoch: OnEpoch,
    states: Sequence[PartStates | None] = (None, None),
) -> FitResult:
    """Fit, and where refitting is asked for, fit again from the start on train + val."""
    probe, seed = not plan.trained_parameters, config.run.seed
    refit = probe if config.learn.refit is None else config.learn.refit
    refit = refit and len(data.val) > 0
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()} if refit else {}
    fitted = fit(model, plan, data, config.learn, cache, seed=seed, part=states[0], on_epoch=on_epoch)
    if not refit or fitted.stopped:
        return fitted
    model.load_state_dict(start)
    both = replace(data, train=np.sort(np.concatenate([data.train, data.val])), val=data.val[:0])
    log.info("refit on train + val: %s", " + ".join(map(in_words, fitted.taught)))
    again = fit(model, plan, both, config.learn, cache, seed=seed, repeat=fitted.taught, part=states[1])
    moved = (*fitted.moved, *again.moved)
    return replace(fitted, moved=moved, snapshots=again.snapshots, stopped=again.stopped)


def _finished(config: TrainConfig, done: dict[str, Any], images: Images, parts: Splits, cache: TrunkCache) -> TrainRun:
    """Return a run that is finished, as it was."""
    assert config.run.out
    models = checkpoint.load(config.run.out, pick_device(config.learn.device))
    batch, workers = config.learn.batch_size or len(parts.train), config.learn.workers
    test_set = TestSet(images.table, images.inspection.sha256, parts.test, cache, config.view, batch, workers)
    answers = test_set.predict(models) if len(parts.test) else {}
    return TrainRun(done, models, [(images.table.take(parts.test), answers)])
