"""Leave-one-out nearest neighbours: how well features separate classes without any training."""

import numpy as np

from transfer.heads import metrics

ROWS_AT_ONCE = 1024  # rows whose similarities to all others are held in memory


def vote_by_neighbours(
    features: np.ndarray, labels: np.ndarray, *, k: int = 5, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the majority class of each image's `k` nearest neighbours, int64, shape (N,); -1 without neighbours.

    Nearest by cosine similarity (Cover and Hart 1967); between classes with as many votes the greatest sum of
    similarities decides.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown: such rows do not vote.
    groups : ndarray of int64, shape (N,), optional
        Rows of the same group, such as duplicates, do not vote on each other.

    Examples
    --------
    >>> vote_by_neighbours(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1]), k=1)
    array([0, 0, 1, 1])
    """
    x = np.asarray(features, dtype=np.float32)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    groups = np.arange(len(x)) if groups is None else groups
    voters = np.flatnonzero(labels >= 0)
    predictions = np.full(len(x), -1, np.int64)
    k = min(k, len(voters))
    if not k:
        return predictions
    votes_for = labels[voters]
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        near = x[rows] @ x[voters].T
        near[groups[rows, None] == groups[voters]] = -np.inf
        nearest = np.argpartition(near, -k, axis=1)[:, -k:]
        similarity = np.take_along_axis(near, nearest, 1)
        votes = np.zeros((len(near), int(votes_for.max()) + 1))
        row, column = np.nonzero(similarity > -np.inf)
        # A similarity is at most 1: over 2k + 1 it never outweighs a vote.
        weight = 1 + similarity[row, column] / (2 * k + 1)
        np.add.at(votes, (row, votes_for[nearest[row, column]]), weight)
        predictions[rows] = np.where(votes.any(1), votes.argmax(1), -1)
    return predictions


def score_neighbours(
    features: np.ndarray, labels: np.ndarray, *, k: int = 5, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return ``accuracy`` and ``balanced_accuracy`` of :func:`vote_by_neighbours` on the labelled images.

    An image without a vote counts as an error. On uninformative features and classes of equal size, leave-one-out
    accuracy is a little below chance: an image's own class has one voter less.

    Examples
    --------
    >>> features = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> score_neighbours(features, np.array([0, 0, 1, 1]), k=1)
    {'accuracy': 1.0, 'balanced_accuracy': 1.0}
    """
    known = labels >= 0
    if not known.any():
        return {"accuracy": float("nan"), "balanced_accuracy": float("nan")}
    predictions = vote_by_neighbours(features, labels, k=k, groups=groups)[known]
    unpredicted = int(labels.max()) + 1  # a class of its own
    counts = metrics.confusion_matrix(
        labels[known], np.where(predictions < 0, unpredicted, predictions), unpredicted + 1
    )
    scores = metrics.score_confusion(counts)
    return {name: float(scores[name]) for name in ("accuracy", "balanced_accuracy")}
