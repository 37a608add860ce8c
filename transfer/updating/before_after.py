"""The old and the new model on the same test images, old and new ones: per head, and per class, with paired tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.config.train import ViewConfig
from transfer.data.table import ImageTable
from transfer.evaluation.aligned_labels import align_labels
from transfer.evaluation.averages.ensemble import TestSet
from transfer.evaluation.paired import paired_test
from transfer.evaluation.predictions import Predictions, decide
from transfer.feature_cache import TrunkCache
from transfer.heads import find_head_kind
from transfer.runs.checkpoint import Models
from transfer.updating.compared_labels import LabelComparison, compare_labels


@dataclass(frozen=True)
class HeadComparison:
    """One head of two models on the test images where its label is known.

    `before` and `after` say whether each image was classified correctly, `classes` which it shows, and `old` whether it
    is a test image of the old run, each (N,).
    """

    before: np.ndarray
    after: np.ndarray
    classes: np.ndarray
    old: np.ndarray

    def compare(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the accuracy of both on `rows`, a mask, and the paired test of the difference; {} without a row."""
        if not rows.any():
            return {}
        before, after = self.before[rows], self.after[rows]
        scores = {"n": int(rows.sum()), "before": float(before.mean()), "after": float(after.mean())}
        return {**scores, "paired": paired_test(after, before)}

    def compare_classes(self) -> dict[str, dict[str, Any]]:
        """Return the recall of both on each class with a test image, old or new."""
        found = {}
        for name in np.unique(self.classes).tolist():
            rows = self.classes == name
            before, after = float(self.before[rows].mean()), float(self.after[rows].mean())
            found[name] = {"n": int(rows.sum()), "before": before, "after": after, "change": after - before}
        return found


def predict_before(
    models: Models, table: ImageTable, digests: np.ndarray, cache: TrunkCache, view: ViewConfig
) -> tuple[ImageTable, Predictions]:
    """Return the test images `table` in terms of the old `models`, and their predictions.

    An image of a class that they do not know is an error. `digests` are the sha256 of the images.
    """
    specs = [spec for model in models.values() for spec in model.heads.specs.values()]
    aligned = align_labels(table, specs, own=True)
    test = TestSet(aligned, digests, np.arange(len(table)), cache, view, batch_size=64)
    return aligned, test.predict(models)


def compare_heads(
    before: tuple[ImageTable, Predictions], after: tuple[ImageTable, Predictions], old: np.ndarray
) -> dict[str, HeadComparison | LabelComparison]:
    """Return the heads with classes or labels that both models have, by name.

    `before` and `after` are the same test images and their predictions by each model; `old` says which of the images
    the old run was tested on, bool (N,).
    """
    found: dict[str, HeadComparison | LabelComparison] = {}
    for name in before[1]:
        target = after[0].targets[name]
        if name in after[1] and target.values.ndim == 2:
            labels = before[0].targets[name].classes
            found[name] = compare_labels(target, labels, before[1][name], after[1][name], old)
        if name not in after[1] or not find_head_kind(target.kind).has_classes:
            continue
        correct = [decide(t.targets[name], p[name]) == t.targets[name].values for t, p in (before, after)]
        known = target.known
        classes = np.array([*target.classes, ""])[target.values[known]]
        found[name] = HeadComparison(correct[0][known], correct[1][known], classes, old[known])
    return found


def describe_comparison(heads: Mapping[str, HeadComparison | LabelComparison]) -> dict[str, Any]:
    """Return the comparison of all heads, for update.json: on old and on new test images, and by class."""
    parts = {
        "old_test": {name: head.compare(head.old) for name, head in heads.items()},
        "new_test": {name: head.compare(~head.old) for name, head in heads.items()},
    }
    parts = {part: {name: found for name, found in by_head.items() if found} for part, by_head in parts.items()}
    return {**parts, "per_class": {name: head.compare_classes() for name, head in heads.items()}}
