"""Share of the variance of features that lies between classes."""

import numpy as np

from transfer.data.table import ImageTable
from transfer.heads import find_head_kind


def between_class_share(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of the variance of `features` that lies between classes (the correlation ratio, Fisher 1925).

    0: the class means are equal; 1: all images of a class have the same features.

    Parameters
    ----------
    features : ndarray, shape (N, width)
    labels : ndarray of int64, shape (N,)
        -1 where unknown; these rows are left out.

    Examples
    --------
    >>> between_class_share(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1]))
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


def between_class_shares(table: ImageTable, features: np.ndarray) -> dict[str, dict[str, float]]:
    """Return :func:`between_class_share` as ``share`` for each target with classes, by name."""
    labels = {name: target.values for name, target in table.targets.items() if find_head_kind(target.kind).has_classes}
    return {name: {"share": between_class_share(features, values)} for name, values in labels.items()}
