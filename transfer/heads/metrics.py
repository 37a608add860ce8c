"""Test metrics of one head: accuracy, balanced accuracy, macro-F1, per class, confusion matrix, R², intervals."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

RESAMPLES = 2000  # bootstrap resamples
MAX_CELLS_AT_ONCE = 4096  # cells of a confusion matrix up to which all resamples are held in memory together
Z_95 = 1.959963984540054  # standard deviations on either side of a normal's mean that hold 95 %


def wilson_interval(share: float, n: float, width: float = Z_95) -> tuple[float, float]:
    """Return the confidence interval of a proportion `share` of `n` samples (Wilson 1927).

    It lies within [0, 1] and has a width even where the proportion is 0 or 1.
    `width` is the number of standard deviations of a normal on either side; by default for 95 %.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(0.5, 10)], [round(end, 3) for end in wilson_interval(1.0, 20)]
    ([0.237, 0.763], [0.839, 1.0])
    """
    middle, scale = share + width**2 / (2 * n), 1 + width**2 / n
    half = width * (share * (1 - share) / n + width**2 / (4 * n * n)) ** 0.5
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (classes, classes): row = true class, column = predicted class.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def score_confusion(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy, balanced accuracy and macro-F1 of confusion matrices (..., C, C), each of shape (...).

    Balanced accuracy is the mean recall over the classes that occur; macro-F1 the mean F1 over the classes that
    occur or are predicted, as scikit-learn defines both.
    """
    counts = counts.astype(float)
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true, predicted = counts.sum(-1), counts.sum(-2)
    n = np.maximum(true.sum(-1), 1e-12)
    recall = np.divide(hit, true, out=np.zeros_like(hit), where=true > 0)
    f1 = np.divide(2 * hit, true + predicted, out=np.zeros_like(hit), where=true + predicted > 0)
    return {
        "accuracy": hit.sum(-1) / n,
        "balanced_accuracy": recall.sum(-1) / np.maximum((true > 0).sum(-1), 1),
        "macro_f1": f1.sum(-1) / np.maximum((true + predicted > 0).sum(-1), 1),
    }


def bootstrap_intervals(counts: np.ndarray, *, level: float = 0.95, seed: int = 0) -> dict[str, list[float]]:
    """Return percentile bootstrap intervals of :func:`score_confusion` (Efron and Tibshirani 1993, ch. 13).

    Resampling images with replacement is sampling their (true, predicted) pairs from a multinomial, so the images
    themselves are not needed. If all predictions are correct, or none is, every resample is the same; the interval
    is then that of :func:`wilson_interval`.

    Parameters
    ----------
    counts : ndarray of int, shape (C, C)
        A confusion matrix.

    Returns
    -------
    dict of str to [low, high]
        By score.
    """
    n, correct = int(counts.sum()), int(np.trace(counts))
    if correct in (0, n):
        width = NormalDist().inv_cdf((1 + level) / 2)
        ends = [round(end, 6) for end in wilson_interval(correct / n, n, width)]
        return {name: list(ends) for name in score_confusion(counts)}
    pairs = np.flatnonzero(counts)
    drawn = np.random.default_rng(seed).multinomial(n, counts.ravel()[pairs] / n, size=RESAMPLES)
    parts = []
    for draws in [drawn] if counts.size <= MAX_CELLS_AT_ONCE else np.split(drawn, RESAMPLES):  # bounds memory
        resampled = np.zeros((len(draws), counts.size), dtype=np.int64)
        resampled[:, pairs] = draws
        parts.append(score_confusion(resampled.reshape(-1, *counts.shape)))
    tail = 100 * (1 - level) / 2
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: np.percentile(v, [tail, 100 - tail]).round(6).tolist() for name, v in scores.items()}


def classification_metrics(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a classification head on the images whose label is known.

    Parameters
    ----------
    true, predicted : ndarray of int, shape (N,)
        `true` is -1 where unknown; those images do not count.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``n``, ``interval`` (95 % bootstrap, by score),
        ``per_class`` and ``confusion`` (rows true, columns predicted). Without a known label only ``n``.
    """
    rows = true >= 0
    if not rows.any():
        return {"n": 0}
    counts = confusion_matrix(true[rows], predicted[rows], len(classes))
    per_class = {}
    for i, name in enumerate(classes):
        support, called = int(counts[i].sum()), int(counts[:, i].sum())
        if support or called:
            per_class[name] = {
                "recall": counts[i, i] / support if support else None,
                "precision": counts[i, i] / called if called else None,
                "n": support,
            }
    return {
        **{name: float(value) for name, value in score_confusion(counts).items()},
        "n": int(rows.sum()),
        "interval": bootstrap_intervals(counts),
        "per_class": per_class,
        "confusion": counts.tolist(),
    }


def regression_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return mean absolute error, root mean squared error and R² on the images whose target is known (not NaN)."""
    rows = ~np.isnan(true)
    if not rows.any():
        return {"n": 0}
    error = predicted[rows] - true[rows]
    variance = float(np.square(true[rows] - true[rows].mean()).mean())
    mse = float(np.square(error).mean())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": mse**0.5,
        "r2": 1 - mse / variance if variance > 0 else 0.0,
        "n": int(rows.sum()),
    }
