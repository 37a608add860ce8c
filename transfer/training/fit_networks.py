"""Fit the networks of a run, one or one per head: fit, calibrate, predict held-out images, refit on train + val."""

import copy
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from transfer import freeze
from transfer.backbones.weights import set_tensors
from transfer.config.train import TrainConfig
from transfer.evaluation.int8_trunk import compare_trunks
from transfer.evaluation.predictions import target_tensors
from transfer.evaluation.temperature import apply_temperatures, fit_temperatures
from transfer.evaluation.uncertainty.record import HeldOut
from transfer.freeze import FreezePlan
from transfer.model import TransferModel
from transfer.probes.choose import is_phase_solved
from transfer.probes.held_out import find_solution
from transfer.probes.held_out_images import CrossFitted, LabelledRows, predict_held_out
from transfer.probes.side_by_side import run_beside
from transfer.runs.session import RunSession
from transfer.runs.states import PartStates
from transfer.runtime.malloc import keep_freed_memory
from transfer.runtime.time_limit import TimeLimit
from transfer.semi_supervised.choose import assign_label_folds
from transfer.semi_supervised.held_out_labels import PropagatedRows, predict_held_out_labels
from transfer.semi_supervised.unlabelled_images import UnlabelledImages, describe_record
from transfer.training.epoch import row_weights
from transfer.training.fit import FitResult, fit
from transfer.training.log_lines import describe_choice, format_epoch
from transfer.training.results import PreparedRun
from transfer.training.setup import TrainingData, find_unlabelled_images

Session = RunSession[TrainConfig]

log = logging.getLogger(__name__)


def fit_networks(session: Session, prepared: PreparedRun, limit: TimeLimit) -> dict[str, FitResult]:
    """Fit each model: one, or one per head where heads are separate."""
    limits = limit.divide(len(prepared.models))
    with session.defer_stop_signals(), keep_freed_memory():
        fits = {
            name: _fit_and_refit(session, prepared, number, next(limits)) for number, name in enumerate(prepared.models)
        }
    for head, record in prepared.unlabelled.items():
        log.info("%s", describe_record(head, record).partition(": ")[0])  # a note of the result says it in full
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
    initial = _copy_moving(model, plan) if refit else {}
    labelled = data.with_pseudo_labels(unlabelled)
    first = run(labelled, parts[0], on_epoch=on_epoch, limit=limit.share(0.5) if refit else limit)
    temperatures = _fit_temperatures(session, prepared, model, data) if config.learn.calibrate else {}
    apply_temperatures(model.heads, temperatures)
    first = replace(first, temperatures=temperatures)
    _compare_trunks(session, prepared, name, data)
    if first.stopped:
        return first
    crossed = _hold_out_labels(session, prepared, number, data, unlabelled, first) if labelled.weights else None
    hold_out = partial(_predict_held_out, session, prepared, number, labelled, first, crossed)
    if not refit:
        return replace(first, held_out=hold_out(model))
    solved = all(is_phase_solved(model, phase, config.learn, session.cache.views) for phase in plan.phases)
    beside = solved and prepared.feed(model, session.cache).has_features
    fitted = model.with_heads(copy.deepcopy(model.heads)) if beside else model
    with run_beside(partial(hold_out, fitted), beside=beside) as get_held_out:
        set_tensors(model, initial)
        both = replace(data, train=np.sort(np.concatenate([data.train, data.val])), val=data.val[:0])
        log.info("refit on train + val: %s", " + ".join(map(describe_choice, first.refit_choices)))
        second = run(both.with_pseudo_labels(unlabelled), parts[1], repeat=first.refit_choices)
        apply_temperatures(model.heads, temperatures)
        held_out = get_held_out()
    moved = (*first.moved, *second.moved)
    return replace(first, moved=moved, snapshots=second.snapshots, stopped=second.stopped, held_out=held_out)


def _copy_moving(model: TransferModel, plan: FreezePlan) -> dict[str, Tensor]:
    """Return copies of the tensors that a fit may change, by name."""
    frozen, state = freeze.find_frozen_tensors(model.backbone, plan.phases), model.state_dict()
    return {n: tensor.clone() for n, tensor in state.items() if n.removeprefix("backbone.network.") not in frozen}


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
    crossed: CrossFitted | None,
    model: TransferModel,
) -> HeldOut:
    """Return predictions by `model`, the fitted one with this number, for images that it was not trained on."""
    learn = prepared.config.learn
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
