"""Predictions of a model for rows of a table, their metrics, and their lines in predictions.csv."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.data.table import ImageTable, Target
from transfer.errors import list_examples
from transfer.evaluation.calibration import measure_calibration
from transfer.feature_cache import Feed
from transfer.heads import HeadSpec, find_head_kind
from transfer.heads.kind import ClassHeadKind
from transfer.model import TransferModel

Predictions = dict[str, np.ndarray]
"""By head: probabilities (N, classes), (N,) of binary heads, (N, labels) of multilabel heads, or values (N,)."""


def target_tensors(table: ImageTable, model: TransferModel) -> dict[str, Tensor]:
    """Return the targets of `model`'s heads, (N,) or (N, labels), as tensors by name.

    A class that a head does not have is unknown.
    """
    tensors = {}
    for name, spec in model.heads.specs.items():
        values = table.targets[name].values
        values = np.where(values < len(spec.classes), values, -1) if spec.head_kind.has_classes else values
        tensors[name] = torch.from_numpy(values)
    # not every device has float64
    return {name: values.float() if values.is_floating_point() else values for name, values in tensors.items()}


def iterate_outputs(model: TransferModel, feed: Feed, rows: np.ndarray) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Yield features (n, width) and outputs of all heads, batch by batch, for `rows` of `feed`."""
    for batch, activation in feed.batches(rows, split=True):
        features = feed.gather_batch(model.features(activation), len(batch))
        yield features, model.heads(features)


def predict_rows(
    model: TransferModel, feed: Feed, rows: np.ndarray, labels: Mapping[str, Tensor]
) -> tuple[Predictions, float]:
    """Return each head's predictions for `rows` and their mean loss; the model is left in eval mode.

    `labels` are those of all rows of the table, from :func:`target_tensors`.
    """
    model.eval()
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for _, outputs in iterate_outputs(model, feed, rows):
            for name, values in outputs.items():
                parts.setdefault(name, []).append(values.cpu())
        if not parts:
            return {name: np.empty(0) for name in model.heads.specs}, 0.0
        out = {name: torch.cat(values) for name, values in parts.items()}
        loss = model.heads.loss(out, {name: label[torch.from_numpy(rows)] for name, label in labels.items()})
        return {name: values.numpy() for name, values in model.heads.predictions(out).items()}, float(loss)


def decide(target: Target, values: np.ndarray) -> np.ndarray:
    """Return class indices (N,) from probabilities; values of numeric targets as they are."""
    return find_head_kind(target.kind).decide(values) if len(values) else values


def evaluate_predictions(
    table: ImageTable, predictions: Predictions, *, intervals: bool = True
) -> dict[str, dict[str, Any]]:
    """Return each head's report on all rows of `table`, by name; see :meth:`transfer.heads.kind.HeadKind.metrics`.

    With `intervals`, heads with classes have a ``calibration_error``, too (:func:`measure_calibration`).
    """
    reports = {}
    for name, values in predictions.items():
        target = table.targets[name]
        kind, known = find_head_kind(target.kind), target.known
        reports[name] = kind.metrics(target, values, intervals=intervals)
        if intervals and isinstance(kind, ClassHeadKind) and known.any():
            confidence, correct = kind.confidence(values[known]), kind.decide(values[known]) == target.values[known]
            if np.isfinite(confidence).all():  # not of a network that diverged
                reports[name]["calibration_error"] = measure_calibration(confidence, correct).error
    return reports


def note_absent_classes(table: ImageTable, predictions: Predictions) -> list[str]:
    """Return a note for each head with classes that no row of `table` has: which, and what its macro figures mean."""
    notes = []
    for name in predictions:
        target = table.targets[name]
        if not isinstance(find_head_kind(target.kind), ClassHeadKind) or not target.known.any():
            continue
        present = np.isin(np.arange(len(target.classes)), target.values)
        absent = [label for label, there in zip(target.classes, present, strict=True) if not there]
        if absent:
            notes.append(
                f"{name}: {len(absent)} of {len(present)} classes have no test image ({list_examples(absent)}); "
                f"balanced accuracy is the mean recall of the other {present.sum()}, and macro-F1 the mean F1 of these "
                "and of each absent class that is predicted, whose F1 is 0"
            )
    return notes


def evaluate_domains(table: ImageTable, predictions: Predictions) -> dict[str, dict[str, Any]]:
    """Return :func:`evaluate_predictions` without intervals on the rows of each domain, by the domain's name."""
    report = {}
    for i, name in enumerate(table.domains):
        rows = table.domain == i
        if rows.any():
            within = {head: values[rows] for head, values in predictions.items()}
            report[name] = evaluate_predictions(table.take(rows), within, intervals=False)
    return report


def main_scores(report: Mapping[str, Mapping[str, Any]], specs: Mapping[str, HeadSpec]) -> dict[str, float]:
    """Return of each head the score that chooses epochs: accuracy, R² of regression; 0 where no target is known."""
    return {name: specs[name].head_kind.main_value(of_head) for name, of_head in report.items()}


def prediction_rows(table: ImageTable, predictions: Predictions) -> list[dict[str, Any]]:
    """Return the lines of predictions.csv: path, and for each head the truth, the prediction and its probability."""
    rows: list[dict[str, Any]] = [{"path": str(path)} for path in table.paths]
    for name, values in predictions.items():
        target = table.targets[name]
        if len(rows):
            columns = find_head_kind(target.kind).csv_columns(name, target, values)
            for row, cells in zip(rows, columns, strict=True):
                row |= cells
    return rows
