"""Metrics of several labels an image: average precision, F1 at thresholds, and the thresholds themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

DEFAULT_THRESHOLD = 0.5
MIN_POSITIVES = (
    5  # images that show a label, for its threshold to be chosen: F1 of fewer moves in steps of 0.2 and more
)
BOOTSTRAP_SAMPLES = 500


def average_precision(true: np.ndarray, scores: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the average precision of one label, as scikit-learn defines it: precision summed over steps of recall.

    Parameters
    ----------
    true : ndarray of bool, shape (N,)
    scores : ndarray, shape (N,)
    counts : ndarray, shape (B, N), optional
        How often each image counts, in each of B samples (default: once, in one).

    Returns
    -------
    ndarray, shape (B,)
        NaN where no image shows the label.

    Examples
    --------
    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7])).round(3)
    array([0.833])
    """
    counts = np.ones((1, len(true))) if counts is None else counts
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores stand together
    called = counts[:, order].cumsum(1)[:, ends].astype(float)
    hits = (counts[:, order] * true[order]).cumsum(1)[:, ends].astype(float)
    total = hits[:, -1]
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    found = (np.diff(hits, axis=1, prepend=0.0) * precision).sum(1)
    return np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0)


def choose_threshold(true: np.ndarray, scores: np.ndarray) -> float:
    """Return the threshold of `scores` (N,) with the highest F1 on `true` (N,); of equal ones the nearest to 0.5.

    It lies midway between two scores. With fewer than `MIN_POSITIVES` images that show the label, it is 0.5.

    Examples
    --------
    >>> true = np.array([False] * 5 + [True] * 5)
    >>> round(choose_threshold(true, np.linspace(0.1, 0.55, 10)), 3), choose_threshold(true[4:6], np.array([0.1, 0.2]))
    (0.325, 0.5)
    """
    if true.sum() < MIN_POSITIVES:
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    f1 = 2 * true[order].cumsum()[ends] / (ends + 1 + true.sum())
    below = np.append(ranked[ends[:-1] + 1], 0.0)  # the next lower score
    middle = (ranked[ends] + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middle[best[np.abs(middle[best] - DEFAULT_THRESHOLD).argmin()]])


def multilabel_metrics(
    true: np.ndarray, scores: np.ndarray, classes: Sequence[str], thresholds: np.ndarray, *, intervals: bool = True
) -> dict[str, Any]:
    """Return the metrics of the labels of images.

    Parameters
    ----------
    true : ndarray of int, shape (N, labels)
        1 if the image shows the label, 0 if not; -1 where that is unknown, which counts for nothing.
    scores : ndarray, shape (N, labels)
        Probabilities.
    thresholds : ndarray, shape (labels,)
        Each label is predicted from its threshold on.
    intervals : bool
        With 95 % bootstrap intervals over images.

    Returns
    -------
    dict
        ``map``, the mean average precision over the labels that some image shows; ``micro_f1``, of all labels together;
        ``macro_f1``, the mean over the labels that are shown or predicted; ``n`` images with a known label;
        ``interval``; ``per_label``. Without a known label only ``n``.
    """
    rows = (true >= 0).any(1)
    if not rows.any():
        return {"n": 0}
    true, scores = true[rows], scores[rows].astype(float)
    once = np.ones((1, len(true)))
    samples = _score_samples(true, scores, thresholds, once)
    report: dict[str, Any] = {name: float(values[0]) for name, values in samples.items()}
    report["n"] = len(true)
    if not intervals:
        return report
    counts = np.random.default_rng(0).multinomial(len(true), once[0] / len(true), size=BOOTSTRAP_SAMPLES)
    drawn = _score_samples(true, scores, thresholds, counts)
    report["interval"] = {name: np.nanpercentile(v, [2.5, 97.5]).round(6).tolist() for name, v in drawn.items()}
    report["per_label"] = {
        name: _score_label(true[:, i], scores[:, i], float(thresholds[i])) for i, name in enumerate(classes)
    }
    return report


def _score_samples(
    true: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return mAP, micro-F1 and macro-F1 of each sample of images, (B,), that `counts` (B, N) describe."""
    called = (scores >= thresholds) & (true >= 0)
    hits, both = counts @ (called & (true == 1)), counts @ (called * 1 + (true == 1))
    f1 = np.divide(2 * hits, both, out=np.full(both.shape, np.nan), where=both > 0)
    return {
        "map": mean_average_precision(true, scores, counts),
        "micro_f1": 2 * hits.sum(1) / np.maximum(both.sum(1), 1),
        "macro_f1": _mean_known(f1),
    }


def mean_average_precision(true: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean over labels of :func:`average_precision`, of each sample of images, shape (B,).

    A label that no image of a sample shows does not count in it.

    Parameters
    ----------
    true : ndarray of int, shape (N, labels)
        1, 0, or -1 where that is unknown. Some value is known.
    scores : ndarray, shape (N, labels)
    counts : ndarray, shape (B, N)
        How often each image counts in each sample.

    Examples
    --------
    >>> true, scores = np.array([[1, 1], [0, -1], [1, 0]]), np.array([[0.9, 0.2], [0.8, 0.9], [0.7, 0.1]])
    >>> mean_average_precision(true, scores, np.ones((1, 3))).round(3)
    array([0.917])
    """
    precisions = []
    for label, score in zip(true.T, scores.T, strict=True):
        known = label >= 0
        if known.any():
            precisions.append(average_precision(label[known] == 1, score[known], counts[:, known]))
    return _mean_known(np.stack(precisions, 1))


def _mean_known(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row without NaN; 0 where nothing is left."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1)


def _score_label(true: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    known = true >= 0
    shown, called = true[known] == 1, scores[known] >= threshold
    hits, support = int((shown & called).sum()), int(shown.sum())
    total = support + int(called.sum())
    return {
        "ap": float(average_precision(shown, scores[known])[0]) if support else None,
        "f1": 2 * hits / total if total else None,
        "precision": hits / int(called.sum()) if called.any() else None,
        "recall": hits / support if support else None,
        "threshold": threshold,
        "n": support,
    }
