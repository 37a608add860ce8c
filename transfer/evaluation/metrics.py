"""What a head got right: accuracy, balanced accuracy, macro-F1, per class, confusion, bootstrap intervals."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from transfer.evaluation.wilson import wilson

RESAMPLES = 2000


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (classes, classes): row = true class, column = predicted class.

    Examples
    --------
    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return accuracy, balanced accuracy and macro-F1 of confusion counts (..., C, C), each of shape (...).

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


def interval(counts: np.ndarray, *, level: float = 0.95, seed: int = 0) -> dict[str, list[float]]:
    """Return percentile bootstrap intervals of :func:`scores` (Efron and Tibshirani 1993, ch. 13).

    Drawing images with replacement is drawing their (true, predicted) pairs from a multinomial, so the images
    themselves are not needed. Where none is wrong, or all are, every draw is the same; the interval is then that of
    :func:`transfer.evaluation.wilson.wilson`.
    """
    n, right = int(counts.sum()), int(np.trace(counts))
    if right in (0, n):
        width = NormalDist().inv_cdf((1 + level) / 2)
        return {name: [round(end, 6) for end in wilson(right / n, n, width)] for name in scores(counts)}
    pairs = np.flatnonzero(counts)
    drawn = np.random.default_rng(seed).multinomial(n, counts.ravel()[pairs] / n, size=RESAMPLES)
    tail = 100 * (1 - level) / 2
    low_high: dict[str, list[float]] = {}
    resampled = np.zeros((RESAMPLES, counts.size), dtype=np.int64) if counts.size <= 4096 else None
    if resampled is not None:
        resampled[:, pairs] = drawn
        parts = [scores(resampled.reshape(RESAMPLES, *counts.shape))]
    else:  # many classes: one resample at a time keeps memory small
        parts = []
        for draw in drawn:
            one = np.zeros(counts.size, dtype=np.int64)
            one[pairs] = draw
            parts.append({k: v[None] for k, v in scores(one.reshape(counts.shape)).items()})
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        low_high[name] = np.percentile(values, [tail, 100 - tail]).round(6).tolist()
    return low_high


def classification(true: np.ndarray, predicted: np.ndarray, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Return the report of one head on the images whose label is known.

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
    counts = confusion(true[rows], predicted[rows], len(classes))
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
        **{name: float(value) for name, value in scores(counts).items()},
        "n": int(rows.sum()),
        "interval": interval(counts, seed=seed),
        "per_class": per_class,
        "confusion": counts.tolist(),
    }


def regression(true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return mean absolute error, root mean squared error and R² on the images whose target is known."""
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
