"""The error rate that class shares imply: predictions are moved to where the classes would have to be."""

import numpy as np
from scipy.optimize import linear_sum_assignment

MAX_TRANSPORTED = 600  # rows; the time grows with their cube: 600 take 30 ms


def estimate_by_transport(probabilities: np.ndarray, shares: np.ndarray, *, seed: int = 0) -> float:
    """Return the expected accuracy if the classes of these images had the `shares` of the training images.

    Each image is assigned to a class such that every class gets its share and as little probability as possible is
    moved: the mean probability of the assigned class (confidence optimal transport, Lu et al. 2023, eq. 3). A shifted
    model that predicts few classes with confidence is found out, while its confidence stays high.

    Parameters
    ----------
    probabilities : ndarray, shape (N, classes)
        At most `MAX_TRANSPORTED` of them are drawn.
    shares : ndarray, shape (classes,)
        Sum to 1.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    >>> round(estimate_by_transport(p, np.array([0.5, 0.5])), 3)  # the last image is moved to the second class
    0.7
    """
    if len(probabilities) > MAX_TRANSPORTED:
        drawn = np.random.default_rng(seed).permutation(len(probabilities))[:MAX_TRANSPORTED]
        probabilities = probabilities[drawn]
    labels = np.repeat(np.arange(len(shares)), round_shares(shares, len(probabilities)))
    gains = probabilities[:, labels]
    return float(gains[linear_sum_assignment(gains, maximize=True)].mean())


def round_shares(shares: np.ndarray, total: int) -> np.ndarray:
    """Return whole numbers (classes,) that sum to `total`, as near to its `shares` as can be: largest remainders first.

    Examples
    --------
    >>> round_shares(np.array([0.5, 0.3, 0.2]), 4).tolist()
    [2, 1, 1]
    """
    exact = shares * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    rest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[rest] += 1
    return counts
