"""Leave-one-out nearest neighbours: how well features tell classes apart with nothing learnt."""

import numpy as np

from transfer.heads import metrics

BLOCK = 1024  # rows whose similarities to all are held at a time


def neighbour_vote(
    features: np.ndarray, labels: np.ndarray, *, k: int = 5, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return what the `k` images nearest to each one say that it is, int64, shape (N,), -1 where there are none.

    Nearest by cosine; most votes win (Cover and Hart 1967), and where several classes have as many, the greatest sum
    of similarities.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown: these rows do not vote.
    k : int
    groups : ndarray of int64, shape (N,), optional
        Equal where two rows show the same picture: they do not vote on each other.

    Examples
    --------
    >>> neighbour_vote(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array([0, 0, 1, 1]), k=1)
    array([0, 0, 1, 1])
    """
    x = np.asarray(features, dtype=np.float32)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    groups = np.arange(len(x)) if groups is None else groups
    voters = np.flatnonzero(labels >= 0)
    answer = np.full(len(x), -1, np.int64)
    k = min(k, len(voters))
    if not k:
        return answer
    called = labels[voters]
    for start in range(0, len(x), BLOCK):
        rows = slice(start, start + BLOCK)
        near = x[rows] @ x[voters].T
        near[groups[rows, None] == groups[voters]] = -np.inf
        nearest = np.argpartition(near, -k, axis=1)[:, -k:]
        similarity = np.take_along_axis(near, nearest, 1)
        votes = np.zeros((len(near), int(called.max()) + 1))
        row, column = np.nonzero(similarity > -np.inf)
        # A similarity is at most 1: over 2k + 1 it never outweighs a vote.
        weight = 1 + similarity[row, column] / (2 * k + 1)
        np.add.at(votes, (row, called[nearest[row, column]]), weight)
        answer[rows] = np.where(votes.any(1), votes.argmax(1), -1)
    return answer


def neighbour_accuracy(
    features: np.ndarray, labels: np.ndarray, *, k: int = 5, groups: np.ndarray | None = None
) -> dict[str, float]:
    """Return ``accuracy`` and ``balanced_accuracy`` of :func:`neighbour_vote` on the images of known label.

    An image on which nobody votes counts as wrong. On features that say nothing of classes of equal size, leaving one
    out is a little below chance: an image's own class has one voter less.

    Examples
    --------
    >>> features = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbour_accuracy(features, np.array([0, 0, 1, 1]), k=1)
    {'accuracy': 1.0, 'balanced_accuracy': 1.0}
    """
    known = labels >= 0
    if not known.any():
        return {"accuracy": float("nan"), "balanced_accuracy": float("nan")}
    answer = neighbour_vote(features, labels, k=k, groups=groups)[known]
    nobody = int(labels.max()) + 1  # a class of its own for no answer at all
    counts = metrics.confusion_matrix(labels[known], np.where(answer < 0, nobody, answer), nobody + 1)
    scores = metrics.score_confusion(counts)
    return {name: float(scores[name]) for name in ("accuracy", "balanced_accuracy")}
