"""`transfer adapt`: a labelled source, an unlabelled target, methods and a rule -> a run with its result."""

import logging
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from transfer import freeze
from transfer.adaptation import diagnostics
from transfer.adaptation.candidates import fit
from transfer.adaptation.closed_form.adabn import NO_BATCH_NORM, with_moving_statistics
from transfer.adaptation.domains import Domains, split_domains
from transfer.adaptation.feature_map import feature_map
from transfer.adaptation.hidden_labels import HiddenLabels
from transfer.adaptation.outcome import AdaptRun, together
from transfer.adaptation.registry import REFERENCE, find_method
from transfer.adaptation.resume import ResumeLog
from transfer.adaptation.selection import validators
from transfer.adaptation.selection.best_candidate import BestCandidate, LogLine, format_candidate, hidden_widths
from transfer.adaptation.task import AdaptationTask, set_up
from transfer.config.adapt import AdaptConfig, ShiftConfig
from transfer.config.serialise import to_dict
from transfer.config.train import DataConfig, HeadConfig
from transfer.data.splits import Splits
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError
from transfer.evaluation.predictions import predict_rows, prediction_rows, target_tensors
from transfer.evaluation.report_data import build_report_data
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.heads import metrics
from transfer.runs import checkpoint
from transfer.runs.folder import RunFolder
from transfer.runs.states import PartStates, RunStates
from transfer.runtime import distributed
from transfer.runtime.device import get_versions
from transfer.runtime.signals import defer_stop_signals
from transfer.training.resume import RunInputs
from transfer.training.setup import Images, read_images

log = logging.getLogger(__name__)

VIEWS = 4  # augmented views of each image that a trained tail learns from, unless --views says otherwise


def read(config: ShiftConfig, cache: TrunkCache) -> Images:
    """Return the images that `config` names, of all domains."""
    return read_images(
        DataConfig(data=config.data, data_root=config.data_root, on_bad_image=config.on_bad_image), cache.disk_cache
    )


def adapt(config: AdaptConfig, *, images: Images | None = None, cache: TrunkCache | None = None) -> AdaptRun:
    """Adapt as `config` says and write its run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        Already read with :func:`read`.
    cache : TrunkCache, optional
        Shared between runs, so that what their frozen trunks have in common is computed once.

    Raises
    ------
    TransferError
        Bad input.
    Stopped
        By a signal, all being saved: with ``resume`` the run goes on to the bits that it would have come to.
    """
    config = prepared(config)
    run, folder = config.run, None
    if run.out and distributed.is_rank_zero():
        how: Any = {"overwrite": run.overwrite, "resume": run.resume, "later": True, "tensorboard": run.tensorboard}
        folder = RunFolder(run.out, to_dict(config), **how)
    if finished := distributed.broadcast(folder.finished_result if folder else None):
        log.info("the run in %s is finished; there is nothing to go on with", run.out)
        with folder or nullcontext():
            return AdaptRun(finished, checkpoint.load(folder.path) if folder else {}, [], [])
    cache = cache or TrunkCache(config.cache)
    with folder or nullcontext(), defer_stop_signals() if run.out else nullcontext():
        return _over_seeds(config, images or read(config.shift, cache), cache, folder)


def _over_seeds(config: AdaptConfig, images: Images, cache: TrunkCache, folder: RunFolder | None) -> AdaptRun:
    out, seeds = config.run.out, config.run.seeds or (config.run.seed,)
    if len(seeds) == 1:
        return _adapt_once(replace(config, run=replace(config.run, seed=seeds[0])), images, cache, folder)
    runs = []
    for number, seed in enumerate(seeds):
        log.info("seed %d", seed)
        inner = out / f"seed{seed}" if out else None
        shown = config.run.report and seed == seeds[0]
        one = replace(config, run=replace(config.run, seed=seed, seeds=(), out=inner, report=shown))
        within = folder.inner(f"seed{seed}", to_dict(one)) if folder else None
        part = _states(folder, config).part(number) if out else None
        done = _done(one, images, within, part) if part else None
        runs.append(done or _adapt_once(one, images, cache, within, part))
    merged = together(config, runs)
    if folder:
        folder.merge_inner_runs([folder.path / f"seed{seed}" for seed in seeds])
        folder.write_result(merged)
    tests, before = [run.tests[0] for run in runs], [run.before[0] for run in runs]
    return AdaptRun(merged, runs[0].models, tests, before)


def prepared(config: AdaptConfig) -> AdaptConfig:
    """Return `config` with what follows from it filled in.

    Raises
    ------
    TransferError
        A method, rule or policy that there is not.
    """
    methods = [find_method(name) for name in config.method.method]
    if config.method.weight and not any(method.losses for method in methods):
        raise TransferError(f"--weight: {', '.join(config.method.method)} minimises no loss that it could weigh")
    validators.find_validators(config.method.rule)
    target_labels = config.shift.target_labels or config.shift.protocol == "office"
    if missing := [method.name for method in methods if not method.uses_source and not target_labels]:
        raise TransferError(f"{missing[0]} learns from target labels, and there are none: say --target-labels 3")
    policy = FreezePolicy.parse(config.method.policy)
    if policy.from_scratch or not policy.single_phase:
        raise TransferError(f"--policy {policy}: to adapt, one phase, such as linear_probe, partial:2 or full")
    if policy.all_stages:
        raise TransferError(
            f"--policy {policy}: features chosen by the labels of one domain need not matter in the other; to adapt "
            "those of an earlier stage say truncate:1"
        )
    if not policy.trains_backbone and any(method.moves_batch_norm for method in methods):
        raise TransferError(NO_BATCH_NORM)
    if not policy.trains_backbone or config.steps.augment == "none" or config.cache.views:
        return config
    return replace(config, cache=replace(config.cache, views=VIEWS))


def _pair(shift: ShiftConfig, images: Images, seed: int) -> tuple[Domains, HiddenLabels]:
    return split_domains(
        images.table,
        images.inspection,
        sources=shift.source,
        target=shift.target,
        protocol=shift.protocol,
        target_labels=shift.target_labels,
        val=shift.val,
        test=shift.test,
        seed=seed,
    )


def _states(folder: RunFolder | None, config: AdaptConfig) -> RunStates:
    """Return the states of a run, whose folder the first process alone has."""
    assert config.run.out
    minutes, resumed = config.run.checkpoint_minutes, distributed.broadcast(bool(folder and folder.resumed))
    return RunStates(config.run.out, minutes, begin=folder.start if folder else None, resumed=resumed)


def _done(config: AdaptConfig, images: Images, folder: RunFolder | None, part: PartStates) -> AdaptRun | None:
    """Return a seed's run if it is done already."""
    result, said = distributed.broadcast(folder.finished_result if folder else None), part.outcome()
    if not result or not said:
        return None
    test = _with_truth(*_pair(config.shift, images, config.run.seed))
    models = checkpoint.load(folder.path) if folder else {}
    return AdaptRun(result, models, [(test, said["answers"])], [said["before"]])


def _adapt_once(
    config: AdaptConfig, images: Images, cache: TrunkCache, folder: RunFolder | None, part: PartStates | None = None
) -> AdaptRun:
    """Adapt with one seed; let `part` keep what several seeds' result needs beside the run folder."""
    began, trunk_before, seed = time.perf_counter(), cache.seconds, config.run.seed
    these, truth = _pair(config.shift, images, seed)
    within, between = validators.find_validators(config.method.rule)
    hold_out = within.validation or between.validation
    if hold_out and not len(these.val):
        raise TransferError(f"--rule {config.method.rule} judges by held-out source images: say --val 0.1, or another")
    stage, plan = set_up(config, these, images, cache, seed, hold_out=hold_out)
    phase = plan.phases[-1]
    moves_batch_norm = any(find_method(name).moves_batch_norm for name in config.method.method)
    phases = (phase, with_moving_statistics(phase)) if moves_batch_norm else (phase,)
    before = freeze.hash_frozen_tensors(stage.model.backbone, phases)

    states = _states(folder, config) if config.run.out else None
    if states:
        unseen = np.concatenate([these.unlabelled, these.labelled, these.test])
        splits = Splits(these.train, these.val, unseen)
        states.of(RunInputs(config.backbone.backbone, stage.model, splits, these.table.paths, images.inspection.sha256))
    if folder:
        folder.reset_metrics()

    def tell(line: dict[str, Any]) -> None:
        log.info("%s", format_candidate(line))
        if folder:
            folder.append_metrics(line)

    def tried(name: str, stage: AdaptationTask, tell: LogLine, journal: ResumeLog) -> BestCandidate:
        stage.journal, choice = journal, BestCandidate(stage, within.score, tell)
        weights, bottleneck = config.method.weight, config.method.bottleneck
        fit(name, stage, phase, config.steps, choice, weights=weights, bottleneck=bottleneck, seed=seed)
        return choice

    untouched = stage.as_features()
    tries, reference = {}, tried(REFERENCE, untouched, lambda line: None, ResumeLog())
    for number, name in enumerate(config.method.method):
        if name == REFERENCE and stage.frozen:
            tries[name] = reference
            for line in reference.lines:
                tell(line)
        else:
            tries[name] = tried(name, stage, tell, ResumeLog(states.part(number) if states else None))
    sound = {name: some for name, some in tries.items() if some.best} or tries  # a method that diverged ends no run
    scores = distributed.broadcast(
        {name: float(between.score(some.candidate.evidence)) for name, some in sound.items()}
    )
    choices = list(sound.values())
    choice = choices[validators.choose_best(list(scores.values()))]
    stage.move(choice.backbone)
    moved = freeze.find_changed_tensors(before, freeze.hash_frozen_tensors(stage.model.backbone, phases))
    stage.model.heads = choice.candidate.heads
    answers = predict_rows(stage.model, stage.feed, these.test, target_tensors(these.table, stage.model))[0]
    found, remarks = diagnostics.describe_shift(untouched, choice.candidate.evidence, seed=seed)
    # All choices and predictions are made: only now are the target labels revealed.
    test = _with_truth(these, truth)
    labelled = bool((test.object >= 0).any())
    oracle = {name: _accuracy(test, said) for some in choices for name, said in some.test_classes.items() if labelled}
    best = max(oracle, key=lambda name: oracle[name]) if oracle else None
    said = [note for some in tries.values() if some is choice or not some.best for note in some.notes]
    trunk, total = cache.seconds - trunk_before, time.perf_counter() - began
    trained = sum(p.numel() for p in stage.model.heads.parameters()) + plan.trained_parameters
    result = {
        "command": "adapt",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(total, 3), "trunk": round(trunk, 3), "train": round(total - trunk, 3)},
        "backbone": {
            "name": stage.model.backbone.name,
            "weights": stage.model.backbone.weights,
            "width": stage.model.backbone.width,
        },
        "policy": {
            "name": str(plan.policy),
            "trained_parameters": trained,
            "frozen_parameters": plan.frozen_parameters,
            "frozen_unchanged": not moved,
            "moved": list(moved),
            "heads_parameters": trained - plan.trained_parameters,
            "phases": to_dict(plan.phases),
        },
        "images": {
            "source": len(these.train),
            "val": len(these.val),
            "target": len(these.unlabelled),
            "target_labelled": len(these.labelled),
            "test": len(these.test),
        },
        "target": {"object": _report(test, answers["object"].argmax(1))},
        "source_only": {"object": _report(test, reference.test_classes["source_only"])},
        **diagnostics.compare_with_source_only([(test, answers)], [reference.test_classes["source_only"]]),
        "shift": found,
        "selection": {
            "rule": config.method.rule,
            "chosen": choice.candidate.name,
            "methods": scores,
            "candidates": {name: score for some in choices for name, score in some.scores.items()},
            "oracle_chosen": best,
            "oracle_accuracy": oracle[best] if best else None,
        },
        "notes": [*images.table.notes, *these.notes, *truth.notes(these.test), *said, *remarks],
    }
    models = {"": stage.model}
    if folder:
        folder.start()
        checkpoint.save(folder.path / "model.safetensors", models, HeadConfig(hidden=hidden_widths(stage.model.heads)))
        folder.write_predictions(prediction_rows(test, answers))
        sides = (", ".join(these.sources), these.target)
        seen = diagnostics.map_states(reference.candidate, choice.candidate)
        if config.run.report and len(test):
            seen_as = [diagnostics.report_state(title, evidence) for title, evidence in seen.items()]
            folder.write_report_data(
                build_report_data(test, answers, stage.model, seen_as, sides, config.steps.workers)
            )
        if config.map:
            feature_map(folder.path / "map.png", seen, classes=these.table.objects, domains=sides, seed=seed)
    if part:
        part.finish({"answers": answers, "before": reference.test_classes["source_only"]})
    if folder:
        folder.write_result(result)
    return AdaptRun(result, models, [(test, answers)], [reference.test_classes["source_only"]])


def _with_truth(these: Domains, truth: HiddenLabels) -> ImageTable:
    """Return the table of the test rows with their true objects."""
    table = these.table.take(these.test)
    true = Target(truth.reveal(these.test), "softmax", truth.classes)
    return replace(table, targets={"object": true, "domain": table.targets["domain"]})


def _report(test: ImageTable, said: np.ndarray) -> dict[str, Any]:
    return metrics.classification_metrics(test.object, said, test.objects)


def _accuracy(test: ImageTable, said: np.ndarray) -> float:
    known = test.object >= 0
    return float((said == test.object)[known].mean())
