"""Rows whose class is known keep it while the others are refined."""

import numpy as np


def clamped(q: np.ndarray, known: np.ndarray | None) -> np.ndarray:
    """Return `q` (N, K) as float64, each row that has a `known` class certain of it.

    Parameters
    ----------
    q : ndarray, shape (N, K)
        Class probabilities.
    known : ndarray of int64, shape (N,), or None
        Class of each row, -1 where it is not known.

    Examples
    --------
    >>> clamped(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([-1, 1])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    q = np.asarray(q, float)
    if known is None:
        return q
    return np.where(known[:, None] < 0, q, np.eye(q.shape[1])[known])
