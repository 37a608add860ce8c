"""LogME: how well a Bayesian linear model explains the classes by the features, found exactly."""

import numpy as np
from scipy.optimize import minimize_scalar

GRID = 65  # ratios of precisions that are looked at before the best is refined
REACH = 1e8  # how far these go beyond the smallest and the largest squared singular value
ROUNDING = 1e-9  # of a class's indicator: less than this outside the features is none


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the log of the maximum evidence for the labels given the features, per image (LogME, You et al. 2021).

    For the indicator y of a class, y = X w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta) has the evidence
    log N(y | 0, X Xᵀ / alpha + I / beta) (eq. 2). It is maximised over alpha and beta, averaged over the classes and
    divided by N. Of two sets of features the one with more is the better; it does not compare sets of images. Like
    the published one, the model has no intercept.

    The published iteration is wrong where N < D. Here, in the singular basis of X, the best beta for a ratio
    ``alpha / beta`` is known in closed form, which leaves one function of that ratio: looked at on a grid of its
    logarithm, then refined around the best. Where a class is exactly linear in features of rank below N (for N <= D,
    copies of images do that) the evidence has no bound as the noise vanishes: its highest peak counts, or without one
    the least ratio looked at. Copies are better left out.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown: these rows do not count.

    Returns
    -------
    float
        In nats; NaN where no label is known.

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 1, 1, 1])
    >>> separate = np.array([[1.0, 0.1], [1.1, 0.0], [0.9, 0.0], [0.0, 1.0], [0.1, 1.1], [0.0, 0.9]])
    >>> bool(logme(separate, labels) > logme(separate[[0, 3, 1, 4, 2, 5]], labels))
    True
    """
    known = labels >= 0
    if not known.any():
        return float("nan")
    present = np.unique(labels[known])
    y = (labels[known, None] == present).astype(float)
    squares, energy, rest = _spectrum(np.asarray(features)[known].astype(float), y)
    n = len(y)
    if not len(squares):  # features that are all zero explain nothing
        return float(_evidence(rest, 0.0, n).mean()) / n

    logs = np.linspace(np.log(squares.min() / REACH), np.log(squares.max() * REACH), GRID)
    shrunk, volume = _at(np.exp(logs), squares)
    evidence = _evidence(shrunk @ energy + rest, volume[:, None], n)  # (GRID, C)
    total = 0.0
    for k in range(len(present)):

        def negative(log_ratio: float, k: int = k) -> float:
            shrunk, volume = _at(np.exp(log_ratio), squares)
            return -float(_evidence(shrunk @ energy[:, k] + rest[k], volume, n))

        best = _peak(evidence[:, k], bounded=len(squares) == n or rest[k] > ROUNDING * y[:, k].sum())
        around = logs[max(best - 1, 0)], logs[min(best + 1, GRID - 1)]
        refined = minimize_scalar(negative, bounds=around, method="bounded", options={"xatol": 1e-6})
        total += max(-refined.fun, float(evidence[best, k]))
    return total / len(present) / n


def _peak(values: np.ndarray, bounded: bool) -> int:
    """Return where `values` are highest; where the first has no bound, the highest that both neighbours are below."""
    if not bounded:
        inner = values[1:-1]
        peaks = np.flatnonzero((inner > values[:-2]) & (inner >= values[2:])) + 1
        if len(peaks):
            return int(peaks[values[peaks].argmax()])
    return int(values.argmax())


def _spectrum(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the squared singular values (r,) of `x`, the energy of `y` along each (r, C), and that outside (C,)."""
    n, width = x.shape
    squares, basis = np.linalg.eigh(x @ x.T if n <= width else x.T @ x)
    spans = squares > squares[-1:] * max(n, width) * np.finfo(float).eps
    squares, basis = squares[spans], basis[:, spans]
    along = basis.T @ y if n <= width else basis.T @ (x.T @ y) / np.sqrt(squares)[:, None]
    energy = np.square(along)
    if len(squares) == n:
        return squares, energy, np.zeros(y.shape[1])
    return squares, energy, np.maximum(y.sum(0) - energy.sum(0), 0.0)  # an indicator is its own square


def _at(ratio: np.ndarray | float, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, at ratios alpha / beta (...), the share of each energy that is left (..., r) and log |X Xᵀ/ratio + I|."""
    relative = squares / np.expand_dims(ratio, -1)
    return 1 / (1 + relative), np.log1p(relative).sum(-1)


def _evidence(left: np.ndarray, volume: np.ndarray | float, n: int) -> np.ndarray:
    """Return the log evidence at the best beta, n / left."""
    return -0.5 * (n * (np.log(2 * np.pi * left / n) + 1) + volume)
