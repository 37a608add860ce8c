"""How much of what features tell apart are the classes of a question."""

import numpy as np

from transfer.data.table import ImageTable
from transfer.heads import find_head_kind


def between_classes(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of the variance of `features` that lies between classes (the correlation ratio, Fisher 1925).

    Features that a class does not change at all have 0; those that nothing else changes have 1.

    Parameters
    ----------
    features : ndarray, shape (N, width)
    labels : ndarray of int64, shape (N,)
        -1 where unknown: these rows do not count.

    Examples
    --------
    >>> between_classes(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1]))
    0.8
    """
    known = labels >= 0
    _, label, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
    x = features[known].astype(float)
    x -= x.mean(0)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, label, x)
    total = float(np.square(x).sum())
    return float((np.square(sums).sum(1) / counts).sum()) / total if total else 0.0


def shares(table: ImageTable, features: np.ndarray) -> dict[str, dict[str, float]]:
    """Return ``share``, as :func:`between_classes` has it, of each softmax target, by name."""
    asked = {name: target.values for name, target in table.targets.items() if find_head_kind(target.kind).has_classes}
    return {name: {"share": between_classes(features, values)} for name, values in asked.items()}
