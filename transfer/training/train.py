"""`transfer train`: images, a backbone, a freeze policy and heads -> a trained model and its result.

Each seed takes four steps on a :class:`~transfer.runs.session.RunSession`: prepare, fit, evaluate, record.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import calibrate
from transfer.backbones.weights import set_tensors
from transfer.config.serialise import to_dict
from transfer.config.train import TrainConfig
from transfer.config.unused import find_unused_options, format_unused_options
from transfer.data.label_sets.refusals import refuse_options_of_objects
from transfer.errors import EndedEarly
from transfer.evaluation.ensemble import load_snapshots
from transfer.evaluation.int8_trunk import compare_trunks
from transfer.evaluation.predictions import Predictions, prediction_rows, target_tensors
from transfer.evaluation.report_data import InitialWeights, build_report_data, features_before_and_after
from transfer.evaluation.temperature import apply_temperatures, fit_temperatures
from transfer.evaluation.uncertainty.record import HeldOut, Uncertainty, find_uncertainty
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, FreezePolicy
from transfer.heads.table_heads import head_specs
from transfer.heads.trained_classes import describe_untrained, find_untrained, note_untrained
from transfer.model import TransferModel
from transfer.probes.held_out import find_solution
from transfer.probes.held_out_images import CrossFitted, LabelledRows, predict_held_out
from transfer.runs.facts import count_split, describe_images, describe_network, list_left_out
from transfer.runs.image_list import list_images, write_image_list
from transfer.runs.inputs import RunInputs
from transfer.runs.seeds import merge_seeds
from transfer.runs.session import OnLine, RunSession
from transfer.runs.states import PartStates
from transfer.runtime.device import pick_device
from transfer.runtime.time_limit import TimeLimit
from transfer.semi_supervised.choose import assign_label_folds
from transfer.semi_supervised.held_out_labels import PropagatedRows, predict_held_out_labels
from transfer.semi_supervised.unlabelled_images import UnlabelledImages, describe_record, find_unlabelled
from transfer.training import optimizers
from transfer.training.epoch import TrainingData
from transfer.training.fit import FitResult, fit
from transfer.training.log_lines import collect_run_facts, describe_choice, format_epoch, note_interpolation
from transfer.training.results import PreparedRun, TrainRun, build_train_result
from transfer.training.setup import (
    Images,
    find_unlabelled_images,
    new_model,
    read_images,
    row_weights,
    split_images,
)
from transfer.training.warm_start.start import WarmStart

Session = RunSession[TrainConfig]

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    images: Images | None = None,
    cache: TrunkCache | None = None,
    backbone: Backbone | None = None,
    warm_start: WarmStart | None = None,
    limit: TimeLimit | None = None,
    on_epoch: OnLine = lambda line: None,
) -> TrainRun:
    """Train as `config` says and write the run folder, if it names one.

    Parameters
    ----------
    images : Images, optional
        From :func:`read_images`, to read them once for several runs.
    cache : TrunkCache, optional
        Shared between runs, so that outputs of the same frozen layers are computed once.
    backbone : Backbone, optional
        Start from a copy of this network, such as another run's, instead of the one that `config` names.
    warm_start : WarmStart, optional
        Start trained networks from those of a finished run; ones that are solved need no start.
    limit : TimeLimit, optional
        Instead of ``config.learn.minutes`` from now on.
    on_epoch : callable
        Receives each epoch's line, as in metrics.jsonl.

    Raises
    ------
    TransferError
        Bad input; :class:`~transfer.errors.EndedEarly`, a loss that became NaN (after everything is saved).
    """
    FreezePolicy.parse(config.policy.policy)
    optimizers.check_optimizer(config.learn.optimizer)
    with RunSession("train", config, cache=cache, on_line=on_epoch) as session:
        images = images or read_images(config.data, session.cache.disk_cache)
        limits = _share_limit(limit or TimeLimit.after(config.learn.minutes), max(len(config.run.seeds), 1))
        runs = session.run_seeds(
            lambda inner: _train_seed(inner, images, backbone, warm_start, next(limits)),
            lambda inner: _load_finished(inner, images),
        )
        result = runs[0].result
        if len(runs) > 1:
            merged = merge_seeds(config.run.seeds, [run.result for run in runs]) | {"config": to_dict(config)}
            result = session.finish_seeds(merged)
    if result["stopped"]:
        raise EndedEarly(result["stopped"] + (f" (saved in {config.run.out})" if config.run.out else ""))
    tests = [test for run in runs for test in run.tests]
    return TrainRun(result, runs[0].models, tests, uncertainty=runs[0].uncertainty)


def _share_limit(limit: TimeLimit, runs: int) -> Iterator[TimeLimit]:
    """Yield the limit of each of several runs when it begins: an equal share of the time that is left."""
    for number in range(runs):
        yield limit.share(1 / (runs - number))


def _train_seed(
    session: Session, images: Images, backbone: Backbone | None, warm: WarmStart | None, limit: TimeLimit
) -> TrainRun:
    prepared = _prepare(session, images, backbone, warm)
    fits = _fit_models(session, prepared, limit)
    for name, fitted in fits.items():
        prepared.notes += [*fitted.shortened, *note_interpolation(name, fitted.interpolated)]
    prepared.set_thresholds({name: fitted.held_out for name, fitted in fits.items()})
    return _record(session, prepared, fits, *_evaluate(session, prepared, fits))


def _prepare(session: Session, images: Images, start: Backbone | None, warm: WarmStart | None) -> PreparedRun:
    """Return the split images, and models with their plans; `start` is the backbone to copy, `warm` the run, if any."""
    config, seed = session.config, session.config.run.seed
    refuse_options_of_objects(config, images.table)
    splits = split_images(images, config.data, seed)
    images = images.hide(splits.rest)
    images.facts.log(describe_images(images.table, count_split(splits), config.run.out is not None))
    images.facts.log(describe_untrained(find_untrained(images.table, splits.train)))
    if config.data.unlabelled and (count := len(find_unlabelled(images.table, splits.train))):
        what = "labels are propagated to them where that predicts held-out labels better"
        images.facts.log({"no label": f"{count:,} training images: {what}"})
    levels, (reading, notes) = images.choose_levels(splits.plain_train), images.describe_levels(splits.plain_train)
    images.facts.log(reading)
    advice, notes = None, [*notes, *images.note_added_levels(splits), *note_untrained(images.table, splits)]
    if FreezePolicy.parse(config.policy.policy).advised:
        from transfer.training.auto_policy import advise_policy, apply_advice  # takes 0.6 s

        advice = advise_policy(config, images, splits, session.cache)
        config = apply_advice(config, advice.advice)
    prepared = PreparedRun(config, images, splits, advice)
    specs, prepared.notes = head_specs(prepared.learnable, splits, config.heads)
    prepared.notes += notes
    if config.data.unlabelled:
        numbers = [spec.name for heads in specs.values() for spec in heads if not spec.head_kind.has_classes]
        prepared.notes += [
            f"{name} is not trained on unlabelled images: only classes are propagated" for name in numbers
        ]
    prepared.notes += ["the backbone starts as another run left it"] if start else []
    device, policy = pick_device(config.learn.device), FreezePolicy.parse(config.policy.policy)
    for name, heads in specs.items():
        backbone = freeze.reshape_backbone(copy.deepcopy(start), policy) if start else None
        model, plan = new_model(config, heads, seed, device, backbone, levels)
        last = warm.apply(name, model, plan, config.learn, config.cache.views) if warm else None
        _calibrate(prepared, model, plan)
        if warm and last:
            plan, sha256 = last, images.inspection.sha256
            prepared.guards[name] = warm.guard(name, model, prepared.learnable, sha256, splits.val, session.cache)
        prepared.models[name] = model
        prepared.plans.append(plan)
        if config.run.out and config.run.report:
            prepared.initial[name] = InitialWeights(model, plan)
    first = next(iter(prepared.models.values()))
    _log_plan(session, prepared)
    table, digests = images.table, images.inspection.sha256
    session.begin(lambda: RunInputs(config.backbone.backbone, first, splits, table.paths, digests))
    return prepared


def _calibrate(prepared: PreparedRun, model: TransferModel, plan: FreezePlan) -> None:
    """Calibrate `model` for int8 on training images, if that is requested."""
    config, rows = prepared.config, prepared.splits.plain_train
    if any(phase.cut for phase in plan.phases):
        paths, digests = prepared.images.table.paths, prepared.images.inspection.sha256
        calibrate(model.backbone, paths[rows], digests[rows], config.learn.workers)
    elif config.backbone.engine == "int8":
        prepared.notes.append("--engine int8 has no effect: no layers stay frozen")


def _log_plan(session: Session, prepared: PreparedRun) -> None:
    """Log backbone, policy and stages, and the options that this run cannot use."""
    plan, splits, table = prepared.plans[0], prepared.splits, prepared.images.table
    backbone = next(iter(prepared.models.values())).backbone
    prepared.images.facts.log(describe_network(backbone, str(plan.policy)))
    facts = collect_run_facts(prepared.config, prepared.models, plan, table, splits)
    log.info("%s", plan.format_table(facts.solved))
    for sentence in format_unused_options(find_unused_options(session.config, facts)):
        log.info("%s", sentence)


def _fit_models(session: Session, prepared: PreparedRun, limit: TimeLimit) -> dict[str, FitResult]:
    """Fit each model: one, or one per head where heads are separate."""
    limits = _share_limit(limit, len(prepared.models))
    with session.defer_stop_signals():
        fits = {
            name: _fit_and_refit(session, prepared, number, next(limits)) for number, name in enumerate(prepared.models)
        }
    for head, record in prepared.unlabelled.items():
        log.info("%s", describe_record(head, record))
    return fits


def _fit_and_refit(session: Session, prepared: PreparedRun, number: int, limit: TimeLimit) -> FitResult:
    """Fit model `number`; with ``--refit``, fit it again from its initial weights on train + val, in half of the time.

    A refit has as many epochs as the fit, and more rows.
    """
    config, images, splits, plan = prepared.config, prepared.images, prepared.splits, prepared.plans[number]
    name, model = list(prepared.models.items())[number]
    val = splits.val[prepared.learnable.object[splits.val] >= 0]
    warm, guard = name in prepared.guards, prepared.guards.get(name)
    data = TrainingData(
        prepared.learnable,
        images.inspection.sha256,
        splits.train,
        val,
        splits.extra,
        groups=splits.groups,
        warm=warm,
        guard=guard,
    )
    unlabelled = find_unlabelled_images(model, plan, data, config, session.cache)
    parts = [session.states.part(part) if session.states else None for part in (2 * number, 2 * number + 1)]

    def on_epoch(line: dict[str, Any]) -> None:
        line = ({"network": name} if name else {}) | line
        session.log_line(line, format_epoch(line))

    def run(data: TrainingData, part: PartStates | None, **options: Any) -> FitResult:
        prepared.unlabelled |= unlabelled.records if unlabelled else {}
        return fit(model, plan, data, config.learn, session.cache, seed=config.run.seed, part=part, **options)

    refit = config.learn.refit if config.learn.refit is not None else not plan.trained_parameters
    refit = refit and len(data.val) > 0
    initial = {key: tensor.clone() for key, tensor in model.state_dict().items()} if refit else {}
    labelled = data.with_pseudo_labels(unlabelled)
    first = run(labelled, parts[0], on_epoch=on_epoch, limit=limit.share(0.5) if refit else limit)
    temperatures = _fit_temperatures(session, prepared, model, data) if config.learn.calibrate else {}
    apply_temperatures(model.heads, temperatures)
    first = replace(first, temperatures=temperatures)
    _compare_trunks(session, prepared, name, data)
    if not first.stopped:
        crossed = _hold_out_labels(session, prepared, number, data, unlabelled, first) if labelled.weights else None
        first = replace(first, held_out=_predict_held_out(session, prepared, number, labelled, first, crossed))
    if not refit or first.stopped:
        return first
    set_tensors(model, initial)
    both = replace(data, train=np.sort(np.concatenate([data.train, data.val])), val=data.val[:0])
    log.info("refit on train + val: %s", " + ".join(map(describe_choice, first.refit_choices)))
    second = run(both.with_pseudo_labels(unlabelled), parts[1], repeat=first.refit_choices)
    apply_temperatures(model.heads, temperatures)
    moved = (*first.moved, *second.moved)
    return replace(first, moved=moved, snapshots=second.snapshots, stopped=second.stopped)


def _compare_trunks(session: Session, prepared: PreparedRun, name: str, data: TrainingData) -> None:
    """Measure what an int8 trunk of the model `name` costs on validation images, before any refit on them."""
    model = prepared.models[name]
    if compared := compare_trunks(
        model, session.cache, data.table, data.digests, data.val, prepared.config.learn.workers
    ):
        prepared.int8[name] = compared
        log.info("%s\n%s", compared.describe(), compared.describe_speed())


def _fit_temperatures(
    session: Session, prepared: PreparedRun, model: TransferModel, data: TrainingData
) -> dict[str, float]:
    """Return the temperatures of a fitted model, by head; none without validation images."""
    if not len(data.val):
        return {}
    labels = target_tensors(data.table, model)
    temperatures = fit_temperatures(model, prepared.feed(model, session.cache), data.val, labels)
    described = ", ".join(f"{name} {temperature:.2f}" for name, temperature in temperatures.items())
    log.info("calibrated on %d validation images: temperature %s", len(data.val), described)
    return temperatures


def _hold_out_labels(
    session: Session,
    prepared: PreparedRun,
    number: int,
    data: TrainingData,
    unlabelled: UnlabelledImages | None,
    fitted: FitResult,
) -> CrossFitted | None:
    """Return predictions for labelled images, by probes on what is propagated without their labels; None: too long."""
    model, learn, seed = list(prepared.models.values())[number], prepared.config.learn, prepared.config.run.seed
    solution = find_solution(model, fitted.refit_choices)
    rows = np.union1d(data.train, data.val)
    labelled = rows[data.table.object[rows] >= 0]
    if solution is None or unlabelled is None or learn.augment != "none" or not len(labelled):
        return None
    groups = data.groups if len(data.groups) else np.arange(len(data.table))
    folds = np.full(len(rows), -1)
    folds[np.isin(rows, labelled)] = assign_label_folds(data.table.object[labelled], groups[labelled], seed)

    def propagate(left: np.ndarray) -> PropagatedRows:
        found = replace(data, train=left, val=data.val[:0]).with_pseudo_labels(unlabelled)
        return PropagatedRows(left, target_tensors(found.table, model), row_weights(found, model, learn.balance))

    feed = prepared.feed(model, session.cache)
    try:
        return predict_held_out_labels(
            feed, rows, folds, propagate, solution, fitted.temperatures, learn.label_smoothing
        )
    finally:
        data.with_pseudo_labels(unlabelled)  # its records are those of the run


def _predict_held_out(
    session: Session,
    prepared: PreparedRun,
    number: int,
    data: TrainingData,
    fitted: FitResult,
    crossed: CrossFitted | None = None,
) -> HeldOut:
    """Return predictions for images that model `number` was not trained on."""
    model, learn = list(prepared.models.values())[number], prepared.config.learn
    rows = LabelledRows(
        prepared.feed(model, session.cache),
        target_tensors(data.table, model),
        data.train,
        data.val,
        row_weights(replace(data, train=np.union1d(data.train, data.val)), model, learn.balance),
        learn.label_smoothing,
        data.draw_folds(prepared.config.run.seed),
    )
    # Pseudo-labels follow from labels that a fold would hold out; augmented views are not solved again.
    solution = None if data.weights or learn.augment != "none" else find_solution(model, fitted.refit_choices)
    return predict_held_out(rows, solution, fitted.temperatures, prepared.config.run.seed, crossed)


def _evaluate(
    session: Session, prepared: PreparedRun, fits: dict[str, FitResult]
) -> tuple[Predictions, list[Predictions]]:
    """Predict the test images with the final models and with each snapshot of a cyclic schedule; save the snapshots."""
    if session.folder:
        session.folder.start()  # a run that stopped in its first epoch has no line yet
    snapshots = []
    weights = {name: fitted.snapshots for name, fitted in fits.items()}
    for number, models in enumerate(load_snapshots(prepared.models, weights), 1):
        for name, model in models.items():
            apply_temperatures(model.heads, fits[name].temperatures)
        session.save_models(models, prepared.config.heads, f"snapshot{number}.safetensors")
        snapshots.append(prepared.predict_test(models, session.cache))
    return prepared.predict_test(prepared.models, session.cache), snapshots


def _record(
    session: Session,
    prepared: PreparedRun,
    fits: dict[str, FitResult],
    predictions: Predictions,
    snapshots: list[Predictions],
) -> TrainRun:
    """Write the models, the predictions, the report data and the result."""
    config, models, test, table = prepared.config, prepared.models, prepared.test, prepared.images.table
    held_out = [fitted.held_out for fitted in fits.values()]
    uncertainty = Uncertainty.from_held_out(prepared.learnable, held_out)
    result = build_train_result(session, prepared, fits, predictions, snapshots, uncertainty)
    for sentence in result["monitor"]:
        log.info("%s", sentence)
    shown = next((name for name, model in models.items() if "object" in model.heads.specs), next(iter(models)))
    moments = []
    if prepared.initial and len(test):  # in all processes, which compute features together
        feed = prepared.feed(models[shown], session.cache)
        moments = features_before_and_after(prepared.initial[shown], models[shown], feed, table, prepared.splits.test)
    session.save_models(models, config.heads)
    if session.folder:
        session.folder.write_predictions(prediction_rows(test, predictions))
        session.folder.write_left_out(list_left_out(table))
        listed = list_images(table, prepared.splits, prepared.images.inspection.sha256)
        write_image_list(session.folder.path, listed)
        if uncertainty:
            uncertainty.save(session.folder.path)
        if moments:
            data = build_report_data(test, predictions, models[shown], moments, table.domains, config.learn.workers)
            session.folder.write_report_data(data)
        session.folder.write_result(result)
    return TrainRun(result, models, [(test, predictions)], uncertainty=uncertainty)


def _load_finished(session: Session, images: Images) -> TrainRun:
    """Return a finished run: its result, its models, and their predictions on the test images."""
    assert session.finished
    config = session.config
    splits = split_images(images, config.data, config.run.seed)
    prepared = PreparedRun(config, images.hide(splits.rest), splits, None)
    models = prepared.models = session.load_models(pick_device(config.learn.device))
    tests = [(prepared.test, prepared.predict_test(models, session.cache))]
    return TrainRun(session.finished, models, tests, uncertainty=find_uncertainty(config.run.out))
