"""LogME: the evidence of a Bayesian linear model of the classes given the features, maximised exactly."""

import numpy as np
from scipy.optimize import minimize_scalar

GRID_SIZE = 65  # ratios of precisions, of which the best is refined
GRID_MARGIN = 1e8  # factor by which they extend beyond the smallest and the largest squared singular value
MIN_RESIDUAL = 1e-9  # share of a class's indicator outside the features' span; less is rounding


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Return the log of the maximum evidence for the labels given the features, per image (LogME, You et al. 2021).

    For the indicator y of a class, y = X w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta) has the evidence
    log N(y | 0, X Xᵀ / alpha + I / beta) (eq. 2). It is maximised over alpha and beta, averaged over the classes and
    divided by N: in nats, NaN where no label is known. It compares features on the same images (higher is better), not
    sets of images. Like the published one, the model has no intercept.

    The published iteration is wrong where N < D. Here, in the singular basis of X, the best beta for a ratio
    ``alpha / beta`` is known in closed form, which leaves one function of that ratio: evaluated on a grid of its
    logarithm, then refined around the best. Where a class is exactly linear in features of rank below N (for N <= D,
    duplicate images cause that) the evidence is unbounded as the noise vanishes: its highest peak is used, or without
    one the smallest ratio of the grid. Leave duplicates out.

    Parameters
    ----------
    features : ndarray, shape (N, D)
    labels : ndarray of int64, shape (N,)
        -1 where unknown: such rows are ignored.

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
    squares, energy, rest = compute_spectrum(np.asarray(features)[known].astype(float), y)
    n = len(y)
    if not len(squares):  # features that are all zero explain nothing
        return float(_evidence(rest, 0.0, n).mean()) / n

    logs = np.linspace(np.log(squares.min() / GRID_MARGIN), np.log(squares.max() * GRID_MARGIN), GRID_SIZE)
    shrunk, volume = _shrink_at(np.exp(logs), squares)
    evidence = _evidence(shrunk @ energy + rest, volume[:, None], n)  # (GRID_SIZE, C)
    total = 0.0
    for k in range(len(present)):

        def negative(log_ratio: float, k: int = k) -> float:
            shrunk, volume = _shrink_at(np.exp(log_ratio), squares)
            return -float(_evidence(shrunk @ energy[:, k] + rest[k], volume, n))

        best = _peak(evidence[:, k], bounded=len(squares) == n or rest[k] > MIN_RESIDUAL * y[:, k].sum())
        around = logs[max(best - 1, 0)], logs[min(best + 1, GRID_SIZE - 1)]
        refined = minimize_scalar(negative, bounds=around, method="bounded", options={"xatol": 1e-6})
        total += max(-refined.fun, float(evidence[best, k]))
    return total / len(present) / n


def _peak(values: np.ndarray, bounded: bool) -> int:
    """Return the index of the highest of `values`; without `bounded`, of the highest local maximum."""
    if not bounded:
        inner = values[1:-1]
        peaks = np.flatnonzero((inner > values[:-2]) & (inner >= values[2:])) + 1
        if len(peaks):
            return int(peaks[values[peaks].argmax()])
    return int(values.argmax())


def compute_spectrum(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _shrink_at(ratio: np.ndarray | float, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, at ratios alpha / beta (...), the remaining share of each energy (..., r) and log |X Xᵀ/ratio + I|."""
    relative = squares / np.expand_dims(ratio, -1)
    return 1 / (1 + relative), np.log1p(relative).sum(-1)


def _evidence(remaining: np.ndarray, volume: np.ndarray | float, n: int) -> np.ndarray:
    """Return the log evidence at the best beta, n / remaining."""
    return -0.5 * (n * (np.log(2 * np.pi * remaining / n) + 1) + volume)
