"""H-score: the share of the variance of whitened features that lies between classes."""

import numpy as np


def hscore(features: np.ndarray, labels: np.ndarray) -> float:
    """Return tr(cov(f)⁻¹ cov(E[f | y])), with a covariance that is invertible even where N < D.

    The H-score (Bao et al. 2019). The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf 2004),
    and the variance between classes is scaled accordingly (Ibrahim et al. 2022).

    Parameters
    ----------
    features, labels
        See :func:`transfer.advice.transferability.logme.logme`.

    Returns
    -------
    float
        From 0, where the mean feature is the same in each class, to :func:`compute_max_hscore`, where only the class
        changes the features and nothing is shrunk.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1])
    >>> hscore(np.array([[0.0], [2.0], [1.0], [1.0]]), labels)
    0.0
    >>> round(hscore(np.array([[0.0], [0.1], [1.0], [1.1]]), labels), 3)
    0.99
    """
    from scipy.linalg import cho_factor, cho_solve
    from sklearn.covariance import ledoit_wolf

    known = labels >= 0
    _, label, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
    x = np.asarray(features)[known].astype(float)
    if not len(x) or not x.var(0).any():
        return 0.0
    x -= x.mean(0)
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    between = (label[:, None] == np.arange(len(counts))).astype(float).T @ x / np.sqrt(counts * len(x))[:, None]
    factor = cho_factor(covariance, lower=True)
    return float((1 - shrinkage) * (between * cho_solve(factor, between.T).T).sum())


def compute_max_hscore(labels: np.ndarray, width: int) -> int:
    """Return the maximum of :func:`hscore`: the number of classes less one, or the width of the features.

    Examples
    --------
    >>> compute_max_hscore(np.array([0, 1, 2, -1]), 1280)
    2
    """
    return min(max(len(np.unique(labels[labels >= 0])) - 1, 0), width)
