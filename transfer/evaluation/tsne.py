"""t-SNE: features of many dimensions as points in the plane."""

import numpy as np
from threadpoolctl import threadpool_limits

PCA_COMPONENTS = 50  # principal components that t-SNE reads, at most
PERPLEXITY = 30
EXAGGERATION, EXAGGERATED_STEPS, STEPS = 4, 50, 300  # of the first steps, and steps in all, as published in 2008
BISECTIONS = 32  # of each row's bandwidth


def embed_tsne(features: np.ndarray) -> np.ndarray:
    """Return points in the plane, float64 (N, 2), that keep neighbours of `features` (N, F) together.

    Exact t-SNE (van der Maaten and Hinton 2008) of the leading principal components, initialised with the first two.
    It takes N² values of memory and 300 N² steps: for up to some thousand rows it is faster than approximations. Two
    rows or fewer are placed side by side.
    """
    rows = len(features)
    if rows < 3:
        return np.stack([np.arange(rows), np.zeros(rows)], 1)
    with threadpool_limits(1, user_api="blas"):  # on so few rows, threads wait more than they compute
        space = _principal_components(features.astype(np.float64))
        affinity = _affinities(space, min(PERPLEXITY, (rows - 1) / 3)).astype(np.float32)
        start = space[:, :2] * (1e-4 / max(float(space[:, 0].std()), 1e-12))
        return _descend(affinity, start.astype(np.float32)).astype(np.float64)


def _principal_components(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(0)
    variance, directions = np.linalg.eigh(centred @ centred.T)  # of rows: fewer than features, mostly
    return (directions * np.sqrt(np.maximum(variance, 0)))[:, : -PCA_COMPONENTS - 1 : -1]


def _squared_distances(points: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    squares = (points * points).sum(1)
    out = np.matmul(-2 * points, points.T, out=out)
    out += squares
    out += squares[:, None]
    return np.maximum(out, 0, out=out)


def _affinities(space: np.ndarray, perplexity: float) -> np.ndarray:
    """Return symmetric probabilities (N, N) of neighbours, each row's bandwidth found by bisection (section 2)."""
    distances = _squared_distances(space)
    away = ~np.eye(len(space), dtype=bool)
    distances -= np.min(distances, axis=1, where=away, initial=np.inf)[:, None]  # the nearest underflows in no row
    distances[~away] = 0
    low, high = np.zeros((len(space), 1)), np.full((len(space), 1), np.inf)
    precision = np.full((len(space), 1), 1 / max(float(np.median(distances)), 1e-12))
    for _ in range(BISECTIONS):
        weights = np.exp(-distances * precision) * away
        total = weights.sum(1, keepdims=True)
        entropy = np.log(total) + precision * (weights * distances).sum(1, keepdims=True) / total
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
        precision = np.where(np.isinf(high), 2 * precision, (low + np.minimum(high, np.finfo(float).max)) / 2)
    weights /= total
    return (weights + weights.T) / (2 * len(space))


def _descend(affinity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return `points` after gradient descent with momentum and a gain per coordinate (sections 3 and 3.4)."""
    rate = len(points) / 10
    velocity, gains = np.zeros_like(points), np.ones_like(points)
    near, force = (
        np.empty_like(affinity),
        np.empty_like(affinity),
    )  # new memory in each step would take most of the time
    affinity = EXAGGERATION * affinity
    for step in range(STEPS):
        if step == EXAGGERATED_STEPS:
            affinity /= EXAGGERATION
        _squared_distances(points, out=near)
        near += 1
        np.reciprocal(near, out=near)
        np.fill_diagonal(near, 0)
        np.multiply(near, -1 / near.sum(), out=force)
        force += affinity
        force *= near
        gradient = 4 * (force.sum(1, keepdims=True) * points - force @ points)
        gains = np.maximum(np.where(velocity * gradient < 0, gains + 0.2, 0.8 * gains), 0.01)
        velocity = (0.5 if step < EXAGGERATED_STEPS else 0.8) * velocity - rate * gains * gradient
        points = points + velocity
    return points
