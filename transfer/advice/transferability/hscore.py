"""H-score: the share of the variance of whitened features that lies between classes."""

import numpy as np

from transfer.advice.transferability.logme import compute_spectrum


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
    from sklearn.covariance import ledoit_wolf_shrinkage

    known = labels >= 0
    _, label, counts = np.unique(labels[known], return_inverse=True, return_counts=True)
    x = np.asarray(features)[known].astype(float)
    if not len(x) or not np.ptp(x, axis=0).any():
        return 0.0
    x -= x.mean(0)
    x /= np.abs(x).max()  # the score does not depend on the scale, but squares of its extremes are 0 or infinite
    shrinkage = ledoit_wolf_shrinkage(x, assume_centered=True)
    indicators = (label[:, None] == np.arange(len(counts))).astype(float)
    # In the directions that the features span: few or alike images give a covariance without an inverse.
    squares, energy, _ = compute_spectrum(x, indicators)
    variances = (1 - shrinkage) * squares + shrinkage * squares.sum() / x.shape[1]
    return float((1 - shrinkage) * (energy / counts * (squares / variances)[:, None]).sum())


def compute_max_hscore(labels: np.ndarray, width: int) -> int:
    """Return the maximum of :func:`hscore`: the number of classes less one, or the width of the features.

    Examples
    --------
    >>> compute_max_hscore(np.array([0, 1, 2, -1]), 1280)
    2
    """
    return min(max(len(np.unique(labels[labels >= 0])) - 1, 0), width)
