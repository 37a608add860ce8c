"""Choose greedily what adds most to the coverage: an image is covered as far as it is similar to a chosen one."""

import heapq
from collections.abc import Callable

import numpy as np

from transfer.curation.picking.pool import Pool

Similarity = Callable[[np.ndarray], np.ndarray]
"""Rows (n,) -> similarities in [0, 1] to all rows of the pool, float32 (n, N)."""

COVERED_AT_ONCE = 512  # rows whose similarities to all others are in memory at once
GAINS_AT_ONCE = 16  # gains at once: one product of matrices is faster than as many of vectors


def choose_by_coverage(
    pool: Pool, n: int, similarity: Similarity, weights: np.ndarray | None = None
) -> list[tuple[int, float]]:
    """Return the `n` candidates that greedily add most to the coverage, each with its gain as a share of all images.

    Covered rows of the pool cover from the start. The gain of an image never grows as others are chosen (coverage is
    submodular), so an outdated gain is a bound, and few are computed again.

    Parameters
    ----------
    similarity : callable
        See `Similarity`.
    weights : ndarray, shape (N,), optional
        How much each image counts (default: 1).

    References
    ----------
    M. Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
    """
    coverage = np.zeros(len(pool), np.float32)
    for rows in _split(np.flatnonzero(pool.covered)):
        coverage = np.maximum(coverage, similarity(rows).max(0))
    weights = np.ones(len(pool), np.float32) if weights is None else weights.astype(np.float32)

    def compute_gains(rows: np.ndarray) -> list[float]:
        gains = np.maximum(similarity(rows) - coverage, 0) @ weights / len(pool)
        return [float(gain) for gain in gains]

    candidates = np.flatnonzero(pool.candidates)
    gains = [gain for rows in _split(candidates) for gain in compute_gains(rows)]
    waiting = [(-gain, int(row), 0) for gain, row in zip(gains, candidates, strict=True)]
    heapq.heapify(waiting)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < n and waiting:
        if waiting[0][2] < len(chosen):  # computed before the last choice
            outdated = [heapq.heappop(waiting)[1] for _ in range(min(GAINS_AT_ONCE, len(waiting)))]
            for gain, row in zip(compute_gains(np.array(outdated)), outdated, strict=True):
                heapq.heappush(waiting, (-gain, row, len(chosen)))
            continue
        negative, row, _ = heapq.heappop(waiting)
        chosen.append((row, -negative))
        coverage = np.maximum(coverage, similarity(np.array([row]))[0])
    return chosen


def _split(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + COVERED_AT_ONCE] for start in range(0, len(rows), COVERED_AT_ONCE)]
