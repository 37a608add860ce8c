"""Heads of several labels an image, of the old and the new model: average precision on the same test images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.data.table import Target
from transfer.evaluation.paired import compare_precision
from transfer.heads.multilabel.metrics import average_precision, mean_average_precision

SCORE = "map"  # in update.json: what is compared, as in result.json


@dataclass(frozen=True)
class LabelComparison:
    """One head of two models on the test images of which some label is known.

    Parameters
    ----------
    labels : tuple of str
        Of the new model.
    true : ndarray of int, shape (N, labels)
        1 if the image shows the label, 0 if not, -1 where that is unknown.
    before, after : ndarray, shape (N, labels)
        Probabilities; those of a label that the old model does not know are 0.
    old : ndarray of bool, shape (N,)
        Whether each is a test image of the old run.
    """

    labels: tuple[str, ...]
    true: np.ndarray
    before: np.ndarray
    after: np.ndarray
    old: np.ndarray

    def compare(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the mean average precision of both on `rows`, a mask, and the interval of the difference.

        The labels are those that an image of `rows` shows. The interval is a paired bootstrap over images. Empty
        without such a label.
        """
        if not (self.true[rows] == 1).any():
            return {}
        true, n = self.true[rows], int(rows.sum())
        scores = [each[rows] for each in (self.before, self.after)]
        before, after = (float(mean_average_precision(true, each, np.ones((1, n)))[0]) for each in scores)
        paired = compare_precision([(true, scores[1], scores[0])])
        return {"n": n, "before": before, "after": after, "score": SCORE, "paired": paired}

    def compare_classes(self) -> dict[str, dict[str, Any]]:
        """Return the average precision of both for each label that a test image shows, and how many images do."""
        found = {}
        for i, name in enumerate(self.labels):
            known, shown = self.true[:, i] >= 0, self.true[:, i] == 1
            if shown.any():
                scores = (each[known, i] for each in (self.before, self.after))
                before, after = (float(average_precision(shown[known], each)[0]) for each in scores)
                found[name] = {"n": int(shown.sum()), "before": before, "after": after, "change": after - before}
        return found


def compare_labels(
    target: Target, labels: tuple[str, ...], before: np.ndarray, after: np.ndarray, old: np.ndarray
) -> LabelComparison:
    """Return the comparison of two models on images with the labels of `target`, which are those of the new model.

    Parameters
    ----------
    labels : tuple of str
        Of the old model.
    before, after : ndarray, shape (N, labels of each model)
    old : ndarray of bool, shape (N,)
    """
    scores = np.zeros(after.shape, before.dtype)
    shared = [(target.classes.index(label), place) for place, label in enumerate(labels) if label in target.classes]
    for new, place in shared:
        scores[:, new] = before[:, place]
    known = target.known
    return LabelComparison(target.classes, target.values[known], scores[known], after[known], old[known])
