"""`transfer adapt`: a labelled source, an unlabelled target, methods and a rule -> an adapted model and its result.

Each seed takes four steps on a :class:`~transfer.runs.session.RunSession`: prepare, fit, evaluate, record.
"""

import logging
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from transfer import freeze
from transfer.adaptation import diagnostics
from transfer.adaptation.closed_form.adabn import NO_BATCH_NORM, with_moving_statistics
from transfer.adaptation.domains import Domains, split_domains
from transfer.adaptation.feature_map import feature_map
from transfer.adaptation.hidden_labels import HiddenLabels
from transfer.adaptation.method_run import fit_method
from transfer.adaptation.registry import REFERENCE, find_method
from transfer.adaptation.results import (
    AdaptRun,
    FittedMethods,
    PreparedAdaptation,
    TargetEvaluation,
    build_result,
    list_adapted_images,
    merge_runs,
    reveal_test,
)
from transfer.adaptation.resume import ResumeLog
from transfer.adaptation.selection import validators
from transfer.adaptation.selection.best_candidate import (
    BestCandidate,
    CandidateModel,
    LogLine,
    format_candidate,
    hidden_widths,
)
from transfer.adaptation.task import AdaptationTask, prepare_task
from transfer.backbones.providers.base import JOINED
from transfer.config.adapt import AdaptConfig, ShiftConfig
from transfer.config.shared import ImagesConfig
from transfer.config.train import DataConfig, HeadConfig
from transfer.config.unused import AdaptationFacts, find_unused_adaptation_options, format_unused_options
from transfer.data.splits import Splits
from transfer.errors import TransferError
from transfer.evaluation.predictions import predict_rows, prediction_rows, target_tensors
from transfer.evaluation.report_data import build_report_data
from transfer.evaluation.temperature import apply_temperatures, match_confidence
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.runs.facts import describe_images, describe_network
from transfer.runs.image_list import write_image_list
from transfer.runs.inputs import RunInputs
from transfer.runs.session import RunSession
from transfer.runtime import distributed
from transfer.training.setup import Images, read_images

VIEWS = 4  # augmented views per image for a trained tail, unless --views says otherwise

Session = RunSession[AdaptConfig]

log = logging.getLogger(__name__)


def adapt(config: AdaptConfig, *, images: Images | None = None, cache: TrunkCache | None = None) -> AdaptRun:
    """Adapt as `config` says and write the run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        From :func:`read_domains`, to read them once for several runs.
    cache : TrunkCache, optional
        Shared between runs, so that outputs of the same frozen layers are computed once.

    Raises
    ------
    TransferError
        Bad input.
    StoppedBySignal
        After saving: with ``resume`` the run continues to bit-identical results.
    """
    config = complete_config(config)
    with RunSession("adapt", config, cache=cache) as session, session.defer_stop_signals():
        if session.finished:
            return AdaptRun(session.finished, session.load_models() if session.folder else {}, [], [])
        known = images or read_domains(config.shift, session.cache)
        runs = session.run_seeds(lambda one: _adapt_seed(one, known), lambda one: _load_finished(one, known))
        result = session.finish_seeds(merge_runs(config, runs)) if len(runs) > 1 else runs[0].result
    tests, before = [test for run in runs for test in run.tests], [each for run in runs for each in run.before]
    return AdaptRun(result, runs[0].models, tests, before)


def read_domains(config: ShiftConfig, cache: TrunkCache) -> Images:
    """Return the images that `config` names, of all domains; ``target_images`` are the domain ``target``."""
    data = DataConfig(**{field.name: getattr(config, field.name) for field in fields(ImagesConfig)})
    unlabelled = {config.target: config.target_images} if config.target_images else {}
    return read_images(data, cache.disk_cache, unlabelled=unlabelled, hidden=config.target)


def complete_config(config: AdaptConfig) -> AdaptConfig:
    """Return `config` with the options that depend on others filled in.

    Raises
    ------
    TransferError
        An unknown method, rule or policy, or options that do not fit together.
    """
    if config.backbones:
        together = replace(config.backbone, backbone=JOINED.join(config.backbones))
        config = replace(config, backbone=together, backbones=())
    shift = config.shift
    if shift.target_images and not shift.target:
        config = replace(config, shift=replace(shift, target=shift.target_images.expanduser().absolute().name))
    methods = [find_method(name) for name in config.method.method]
    if config.method.weight and not any(method.losses for method in methods):
        raise TransferError(f"--weight: {', '.join(config.method.method)} minimises no loss that it could weight")
    validators.find_validators(config.method.rule)
    target_labels = config.shift.target_labels or config.shift.protocol == "office"
    if missing := [method.name for method in methods if not method.uses_source and not target_labels]:
        raise TransferError(f"{missing[0]} learns from target labels, but there are none: use --target-labels 3")
    policy = FreezePolicy.parse(config.method.policy)
    if policy.from_scratch or not policy.single_phase:
        raise TransferError(f"--policy {policy}: adaptation takes one phase, such as linear_probe, partial:2 or full")
    if policy.all_stages:
        raise TransferError(
            f"--policy {policy}: features chosen by the labels of one domain need not matter in the other; to adapt "
            "the features of an earlier stage, use truncate:1"
        )
    if not policy.trains_backbone and any(method.moves_batch_norm for method in methods):
        raise TransferError(NO_BATCH_NORM)
    if not policy.trains_backbone or config.steps.augment == "none" or config.cache.views:
        return config
    return replace(config, cache=replace(config.cache, views=VIEWS))


def _split(shift: ShiftConfig, images: Images, seed: int) -> tuple[Domains, HiddenLabels]:
    everything_else = [name for name in images.table.domains if name != shift.target] if shift.target_images else []
    return split_domains(
        images.table,
        images.inspection,
        sources=shift.source or everything_else,
        target=shift.target,
        protocol=shift.protocol,
        target_labels=shift.target_labels,
        val=shift.val,
        test=shift.test,
        seed=seed,
    )


def _load_finished(session: Session, images: Images) -> AdaptRun | None:
    """Return a seed's finished run; None where its predictions were not saved."""
    saved = session.load_outcome()
    if not saved or not session.finished:
        return None
    test = reveal_test(*_split(session.config.shift, images, session.config.run.seed))
    models = session.load_models() if session.folder else {}
    return AdaptRun(session.finished, models, [(test, saved["answers"])], [saved["before"]])


def _adapt_seed(session: Session, images: Images) -> AdaptRun:
    prepared = _prepare(session, images)
    fitted = _fit_methods(session, prepared)
    evaluation = _evaluate(session, prepared, fitted)
    return _record(session, prepared, fitted, evaluation)


def _prepare(session: Session, images: Images) -> PreparedAdaptation:
    """Split the domains and return a fresh model on them, its frozen features computed."""
    config, seed = session.config, session.config.run.seed
    domains, hidden = _split(config.shift, images, seed)
    hold_out = any(rule.validation for rule in validators.find_validators(config.method.rule))
    if hold_out and not len(domains.val):
        raise TransferError(f"--rule {config.method.rule} needs held-out source images: use --val 0.1, or another rule")
    task, plan = prepare_task(config, domains, images, session.cache, seed, hold_out=hold_out)
    parts = {"source": len(domains.train), "val": len(domains.val), "target": len(domains.unlabelled)}
    parts |= {"labelled target": len(domains.labelled)} if len(domains.labelled) else {}
    parts |= {"test": len(domains.test)}
    used = replace(domains.table, unlabelled=())  # the target needs no labels
    images.facts.log(describe_images(used, parts, config.run.out is not None))
    images.facts.log(images.describe_levels(domains.seen)[0])
    images.facts.log(describe_network(task.model.backbone, str(plan.policy)))
    phase = plan.phases[-1]
    _log_unused_options(session.config, sum(bool(stage.trained) for stage in phase.stages))
    moves_batch_norm = any(find_method(name).moves_batch_norm for name in config.method.method)
    phases = (phase, with_moving_statistics(phase)) if moves_batch_norm else (phase,)
    frozen = freeze.hash_frozen_tensors(task.model.backbone, phases)

    def inputs() -> RunInputs:
        splits = Splits(
            domains.train, domains.val, np.concatenate([domains.unlabelled, domains.labelled, domains.test])
        )
        digests = images.inspection.sha256
        return RunInputs(config.backbone.backbone, task.model, splits, domains.table.paths, digests)

    session.begin(inputs)
    return PreparedAdaptation(images, task, hidden, plan, phases, frozen)


def _log_unused_options(config: AdaptConfig, trained_stages: int) -> None:
    """Log the options that this adaptation cannot use."""
    methods = [find_method(name) for name in config.method.method]
    losses = any(method.losses for method in methods)
    fitted = any(method.fit and not method.moves_batch_norm for method in methods)
    source = trained_stages and any(method.uses_source and not method.fit for method in methods)
    facts = AdaptationFacts(
        trained_stages,
        steps=bool(losses or fitted or source),
        candidates=losses or len(methods) > 1,
        estimates=any(method.estimates_accuracy for method in methods),
    )
    for sentence in format_unused_options(find_unused_adaptation_options(config, facts)):
        log.info("%s", sentence)


def _fit_methods(session: Session, prepared: PreparedAdaptation) -> FittedMethods:
    """Fit source_only and every method, and choose among them by the rule, which sees no target label."""
    config, task = session.config, prepared.task
    within, between = validators.find_validators(config.method.rule)

    def run_method(name: str, task: AdaptationTask, resume_log: ResumeLog, on_line: LogLine) -> BestCandidate:
        best = BestCandidate(task.for_method(resume_log), within.score, on_line)
        weights, bottleneck = config.method.weight, config.method.bottleneck
        phase, seed = prepared.plan.phases[-1], config.run.seed
        fit_method(name, best, phase, config.steps, weights=weights, bottleneck=bottleneck, seed=seed)
        return best

    def on_line(line: dict[str, Any]) -> None:
        session.log_line(line, format_candidate(line))

    untouched = task.as_features()
    reference = run_method(REFERENCE, untouched, ResumeLog(), lambda line: None)
    methods = {}
    for number, name in enumerate(config.method.method):
        if name == REFERENCE and task.frozen:
            methods[name] = reference
            for line in reference.lines:
                on_line(line)
        else:
            resume_log = ResumeLog(session.states.part(number) if session.states else None)
            methods[name] = run_method(name, task, resume_log, on_line)
    sound = {name: each for name, each in methods.items() if each.best} or methods  # others may have diverged
    scores = distributed.broadcast(
        {name: float(between.score(each.candidate.evidence)) for name, each in sound.items()}
    )
    chosen = list(sound.values())[validators.choose_best(list(scores.values()))]
    return FittedMethods(untouched, reference, methods, scores, chosen)


def _find_temperatures(candidate: CandidateModel) -> dict[str, float]:
    """Return the temperature of the target's logits, by head; none where its accuracy is not estimated."""
    if candidate.accuracy is None:
        return {}
    logits = torch.from_numpy(candidate.evidence.target_logits)
    temperature = distributed.broadcast(match_confidence(logits, candidate.accuracy))
    accuracy = f"an accuracy on the target that is estimated at {candidate.accuracy:.3f}"
    log.info("calibrated to %s, without its labels: temperature object %.2f", accuracy, temperature)
    return {"object": temperature}


def _evaluate(session: Session, prepared: PreparedAdaptation, fitted: FittedMethods) -> TargetEvaluation:
    """Predict the target's test images with the chosen candidate; then reveal their labels."""
    task, domains, chosen = prepared.task, prepared.task.domains, fitted.chosen
    task.move(chosen.backbone)
    task.model.heads = chosen.candidate.heads
    temperatures = _find_temperatures(chosen.candidate) if session.config.steps.calibrate else {}
    apply_temperatures(task.model.heads, temperatures)
    predictions = predict_rows(
        task.model, task.evaluation_feed, domains.test, target_tensors(domains.table, task.model)
    )[0]
    # After the predictions: these are the tensors that are saved.
    frozen = freeze.hash_frozen_tensors(task.model.backbone, prepared.phases)
    moved = tuple(freeze.find_changed_tensors(prepared.frozen, frozen))
    seed = session.config.run.seed
    shift, remarks = diagnostics.describe_shift(fitted.untouched, chosen.candidate.evidence, seed=seed)
    # All choices and predictions are made: only now are the target labels revealed.
    test = reveal_test(domains, prepared.hidden)
    return TargetEvaluation(test, predictions, temperatures, shift, remarks, moved)


def _record(
    session: Session, prepared: PreparedAdaptation, fitted: FittedMethods, evaluation: TargetEvaluation
) -> AdaptRun:
    """Write the model, the predictions, the report data, the feature map and the result."""
    config, task, test, predictions = session.config, prepared.task, evaluation.test, evaluation.predictions
    result = build_result(session, prepared, fitted, evaluation)
    models, before = {"": task.model}, fitted.reference.test_classes[REFERENCE]
    session.save_models(models, HeadConfig(hidden=hidden_widths(task.model.heads)))
    if session.folder:
        session.folder.write_predictions(prediction_rows(test, predictions))
        session.folder.write_left_out(prepared.images.table.left_out)
        digests = prepared.images.inspection.sha256
        write_image_list(session.folder.path, list_adapted_images(task.domains, test, digests))
        sides = (", ".join(task.domains.sources), task.domains.target)
        states = diagnostics.map_states(fitted.reference.candidate, fitted.chosen.candidate)
        if config.run.report and len(test):
            shown = [diagnostics.report_state(title, evidence) for title, evidence in states.items()]
            data = build_report_data(test, predictions, task.model, shown, sides, config.steps.workers)
            session.folder.write_report_data(data)
        if config.map:
            path, seed = session.folder.path / "map.png", config.run.seed
            feature_map(path, states, classes=task.classes, domains=sides, seed=seed)
    session.save_outcome({"answers": predictions, "before": before})
    if session.folder:
        session.folder.write_result(result)
    return AdaptRun(result, models, [(test, predictions)], [before])
