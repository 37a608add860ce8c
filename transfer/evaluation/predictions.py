"""What a model answers for rows of a table, and how right that is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.data.table import ImageTable, Target
from transfer.feature_cache import Feed
from transfer.heads import metrics
from transfer.model import TransferModel

Answers = dict[str, np.ndarray]


def targets(table: ImageTable, model: TransferModel) -> dict[str, Tensor]:
    """Return the targets (N,) of `model`'s heads, as tensors by name."""
    return {name: _tensor(table.targets[name]) for name in model.heads.specs}


def _tensor(target: Target) -> Tensor:
    values = torch.from_numpy(target.values)
    return values.float() if target.kind == "regression" else values  # not every device has float64


def answer(model: TransferModel, feed: Feed, rows: np.ndarray, labels: Mapping[str, Tensor]) -> tuple[Answers, float]:
    """Return each head's answers for `rows` (see :meth:`transfer.heads.heads.Heads.answers`) and their mean loss."""
    model.eval()
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for some, activation in feed.batches(rows, split=True):
            features = feed.whole(model.features(activation), len(some))
            for name, values in model.heads(features).items():
                parts.setdefault(name, []).append(values.cpu())
        if not parts:
            return {name: np.empty(0) for name in model.heads.specs}, 0.0
        out = {name: torch.cat(values) for name, values in parts.items()}
        loss = model.heads.loss(out, {name: label[torch.from_numpy(rows)] for name, label in labels.items()})
        return {name: values.numpy() for name, values in model.heads.answers(out).items()}, float(loss)


def decide(target: Target, values: np.ndarray) -> np.ndarray:
    """Return class indices (N,) from probabilities, or regression values as they are."""
    if target.kind == "regression" or not len(values):
        return values
    return values.argmax(1) if target.kind == "softmax" else (values > 0.5).astype(np.int64)


def judge(table: ImageTable, answers: Answers, *, intervals: bool = True) -> dict[str, dict[str, Any]]:
    """Return each head's report on all rows of `table` (see :mod:`transfer.heads.metrics`), by name."""
    report = {}
    for name, values in answers.items():
        target = table.targets[name]
        if target.kind == "regression":
            report[name] = metrics.regression_metrics(target.values, values)
        elif intervals:
            report[name] = metrics.classification_metrics(target.values, decide(target, values), target.classes)
        else:
            rows = target.known
            right = decide(target, values)[rows] == target.values[rows]
            report[name] = {"n": int(rows.sum())} | ({"accuracy": float(right.mean())} if rows.any() else {})
    return report


def per_domain(table: ImageTable, answers: Answers) -> dict[str, dict[str, Any]]:
    """Return :func:`judge` on the rows of each domain, by the domain's name."""
    report = {}
    for i, name in enumerate(table.domains):
        rows = table.domain == i
        if rows.any():
            report[name] = judge(table.take(rows), {k: v[rows] for k, v in answers.items()}, intervals=False)
    return report


def score(report: Mapping[str, Mapping[str, Any]]) -> float:
    """Return one number to choose an epoch by: the mean over heads of accuracy (R² for regression)."""
    return float(np.mean([r.get("accuracy", r.get("r2", 0.0)) for r in report.values()])) if report else 0.0
