"""What a training returns, and the content of its result.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from transfer.config.train import TrainConfig, ViewConfig
from transfer.data.conflicts import count_conflicts
from transfer.data.label_sets.combinations import count_labels
from transfer.data.splits import Splits
from transfer.data.table import ImageTable
from transfer.evaluation.averages.ensemble import TestSet, average_predictions
from transfer.evaluation.finished_run import FinishedRun
from transfer.evaluation.int8_trunk import TrunkComparison
from transfer.evaluation.predictions import (
    Predictions,
    evaluate_domains,
    evaluate_predictions,
    note_absent_classes,
)
from transfer.evaluation.report_data import InitialWeights
from transfer.evaluation.uncertainty.record import HeldOut, Uncertainty
from transfer.feature_cache import Feed, TrunkCache
from transfer.freeze import FreezePlan
from transfer.heads.trained_classes import find_untrained, put_trained_first
from transfer.model import TransferModel
from transfer.probes.head2toe import count_selected_features
from transfer.runs import checkpoint
from transfer.runs.session import RunSession
from transfer.runtime import distributed
from transfer.semi_supervised.unlabelled_images import describe_record
from transfer.training.diagnosis.monitor import find_problems
from transfer.training.fit import FitResult
from transfer.training.log_lines import note_divided_batches
from transfer.training.setup import Images, drop_untrained
from transfer.training.warm_start.guard import Guard, note_warm_start

if TYPE_CHECKING:
    from transfer.training.auto_policy import PolicyAdvice


@dataclass(repr=False)
class TrainRun(FinishedRun):
    """The return value of :func:`train`.

    Parameters
    ----------
    tests : list of (ImageTable, Predictions)
        For each seed the test images and their predictions.
    """

    tests: list[tuple[ImageTable, Predictions]]


@dataclass
class PreparedRun:
    """One seed's images, split and untrained models; `config` has the policy and settings of `advice`, if any.

    `initial` has the weights before training, for the report, and `notes` those on the heads, for the result. Classes
    without a training image (`untrained`, by target) come last in the table of `images`, and are not in `learnable`,
    which is trained on. `unlabelled` has by head how many unlabelled images count, and how: see
    :meth:`transfer.semi_supervised.unlabelled_images.UnlabelledImages.label`. `guards` are those of the networks that
    start from finished ones, None without validation images, `int8` has what int8 trunks cost.
    """

    config: TrainConfig
    images: Images
    splits: Splits
    advice: "PolicyAdvice | None"
    notes: list[str] = field(default_factory=list)
    models: checkpoint.Models = field(default_factory=dict)
    plans: list[FreezePlan] = field(default_factory=list)
    initial: dict[str, InitialWeights] = field(default_factory=dict)
    unlabelled: dict[str, dict[str, Any]] = field(default_factory=dict)
    guards: dict[str, Guard | None] = field(default_factory=dict)
    int8: dict[str, TrunkComparison] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.untrained = find_untrained(self.images.table, self.splits.train)
        self.learnable = drop_untrained(self.images.table, self.splits)
        self.images = replace(self.images, table=put_trained_first(self.images.table, self.splits.train))

    @property
    def batch_size(self) -> int:
        """Images per batch; the whole training set where the config says 0."""
        return self.config.learn.batch_size or len(self.splits.train)

    def feed(self, model: TransferModel, cache: TrunkCache) -> Feed:
        """Return the feed of all images for `model`."""
        paths, digests = self.images.table.paths, self.images.inspection.sha256
        return cache.feed(model, paths, digests, batch_size=self.batch_size, workers=self.config.learn.workers)

    @property
    def test(self) -> ImageTable:
        """The test images; their targets have the thresholds of the models."""
        test = self.images.table.take(self.splits.test)
        specs = {name: spec for model in self.models.values() for name, spec in model.heads.specs.items()}
        chosen = {n: replace(test.targets[n], thresholds=s.thresholds) for n, s in specs.items() if s.thresholds}
        return replace(test, targets=test.targets | chosen)

    def set_thresholds(self, held_out: Mapping[str, HeldOut | None]) -> None:
        """Give the heads of each model the thresholds that are best on its held-out images, if they decide by any."""
        for part, images in held_out.items():
            specs = self.models[part].heads.specs
            if not images or not len(images.rows):
                continue
            for name, predictions in images.predictions.items():
                target = self.learnable.take(images.rows).targets[name]
                if thresholds := specs[name].head_kind.choose_thresholds(target, predictions):
                    thresholds = tuple(distributed.broadcast(thresholds))  # outputs differ in their last digits
                    specs[name] = replace(specs[name], thresholds=thresholds)

    def predict_test(self, models: checkpoint.Models, cache: TrunkCache) -> Predictions:
        """Return predictions on the test images, by head; none where there are no test images."""
        return self.test_set(cache).predict(models) if len(self.splits.test) else {}

    def test_set(self, cache: TrunkCache, *, several: bool = True) -> TestSet:
        """Return the test images for prediction, in `several` views each if the config has them."""
        table, digests, rows = self.images.table, self.images.inspection.sha256, self.splits.test
        view = self.config.view if several else ViewConfig()
        return TestSet(table, digests, rows, cache, view, self.batch_size, self.config.learn.workers)


def build_train_result(
    session: RunSession[TrainConfig],
    prepared: PreparedRun,
    fits: dict[str, FitResult],
    predictions: Predictions,
    snapshots: list[Predictions],
    uncertainty: Uncertainty | None,
) -> dict[str, Any]:
    """Return the content of result.json, from predictions on the test images: of the models, and of each snapshot."""
    models, plans, splits, table = prepared.models, prepared.plans, prepared.splits, prepared.images.table
    test = prepared.test
    selected = {name: count for model in models.values() for name, count in count_selected_features(model).items()}
    parameters = [p for model in models.values() for p in model.heads.parameters()]
    heads = sum(int(p.count_nonzero()) if selected else p.numel() for p in parameters)
    header = session.result_header(
        next(iter(models.values())).backbone,
        plans,
        heads_parameters=heads,
        moved=sorted({name for fitted in fits.values() for name in fitted.moved}),
        **({"dropped": plans[0].dropped} if plans[0].dropped else {}),
        **({"kept": selected} if selected else {}),
        optimizer_bytes=sum(fitted.optimizer_bytes for fitted in fits.values()),
    )
    counts = {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)}
    accumulate = prepared.config.learn.accumulate
    parts = [fitted.parts if fitted.parts > accumulate else 1 for fitted in fits.values()]
    optional: dict[str, Any] = {}
    if snapshots and len(test):
        average = evaluate_predictions(test, average_predictions(snapshots))
        optional["snapshots"] = {"n": len(snapshots), "test": average}
    if uncertainty and len(test):
        unknown = uncertainty.unknown
        strangeness = prepared.test_set(session.cache).score_unknown(models, unknown) if unknown else None
        # Sets are made from the plain view of each image, and so is what `predict` answers.
        several = prepared.config.view.several
        plain = prepared.test_set(session.cache, several=False).predict(models) if several else predictions
        optional["uncertainty"] = uncertainty.measure(test, plain, strangeness)
    untrained = {"untrained": prepared.untrained} if prepared.untrained else {}
    return {
        **header,
        "images": counts | count_conflicts(table) | _measure_balance(table, splits) | untrained,
        "test": evaluate_predictions(test, predictions) if len(test) else {},
        "per_domain": evaluate_domains(test, predictions) if len(test) else {},
        **optional,
        **_collect_optional(prepared, fits),
        "validation": _collect_validation(models, fits),
        "epochs": {name or "model": fitted.best for name, fitted in fits.items()},
        "temperatures": {head: round(t, 4) for fitted in fits.values() for head, t in fitted.temperatures.items()},
        "monitor": find_problems(session.lines),
        "stopped": "; ".join(fitted.stopped for fitted in fits.values() if fitted.stopped),
        "notes": [
            *table.notes,
            *splits.notes,
            *prepared.notes,
            *(line for name, guard in prepared.guards.items() for line in note_warm_start(guard, fits[name].best)),
            *(describe_record(name, record) for name, record in prepared.unlabelled.items()),
            *note_divided_batches(parts, prepared.batch_size),
            *(compared.describe() for compared in prepared.int8.values()),
            *note_absent_classes(test, predictions),
        ],
    }


def _collect_optional(prepared: PreparedRun, fits: Mapping[str, FitResult]) -> dict[str, Any]:
    """Return the records that only some runs have."""
    guards = {name: guard for name, guard in prepared.guards.items() if guard}
    records = {
        "advice": prepared.advice.record if prepared.advice else {},
        "unlabelled": prepared.unlabelled,
        "warm_start": {name: guard.record(fits[name].epochs, fits[name].best) for name, guard in guards.items()},
        "interpolated": {name: fitted.interpolated for name, fitted in fits.items() if fitted.interpolated},
        "int8": {name: compared.to_dict() for name, compared in prepared.int8.items()},
    }
    of_networks = ("warm_start", "interpolated", "int8")
    return {
        kind: {name or "model": value for name, value in record.items()} if kind in of_networks else record
        for kind, record in records.items()
        if record
    }


def _collect_validation(models: checkpoint.Models, fits: Mapping[str, FitResult]) -> dict[str, float]:
    """Return the validation scores that chose the weights, by head, before any refit; none without such images."""
    found: dict[str, float] = {}
    for name, fitted in fits.items():
        best = (-math.inf, -math.inf)
        for line in fitted.epochs:
            if "val_loss" not in line or "head" in line:  # a single L2 regularisation of a solved head
                continue
            scores = {head: score for head, score in line["val"].items() if models[name].heads.specs[head].weight}
            if scores and (value := (fmean(scores.values()), -line["val_loss"])) > best:
                best, found = value, found | scores
        for chosen in list(fitted.interpolated.values())[-1:]:  # from the best weights before it: none scores more
            found |= {head: score for head, score in chosen["val"].items() if models[name].heads.specs[head].weight}
    return found


def _measure_balance(table: ImageTable, splits: Splits) -> dict[str, Any]:
    """Return the number of training images of the rarest and the most frequent object or label, and their ratio."""
    counts = {name: count for name, count in count_labels(table, splits.train).items() if count}
    if not counts:  # sets of classes that are no labels
        return {}
    rarest, commonest = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    return {
        "rarest": {rarest: counts[rarest]},
        "commonest": {commonest: counts[commonest]},
        "imbalance": round(counts[commonest] / counts[rarest], 2),
    }
