"""TypiClust: the most typical image of each cluster, clusters without a label first (Hacohen et al. 2022)."""

import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from transfer.curation.picking.coverage import COVERED_AT_ONCE
from transfer.curation.picking.pool import Choice, Pool

TYPICAL_NEIGHBOURS = 20  # of which an image is typical if they are near, as in the paper
MAX_CLUSTERS = 500  # as in the paper
MIN_IMAGES_OF_MINI_BATCHES = 10_000  # more images are clustered by mini-batches
MIN_CLUSTER = 5  # images; smaller clusters come last, as in the paper


def choose_typical(pool: Pool, n: int) -> list[Choice]:
    """Return the most typical image of each of the largest clusters without a label, `n` in all.

    There are as many clusters as labels, old and new. Typicality is the inverse mean distance to the nearest
    `TYPICAL_NEIGHBOURS` images of the cluster (of half of it, if it is small). Clusters with fewer labels come first,
    of these larger ones.

    References
    ----------
    G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies suit high and low budgets",
    2022, algorithm 1.
    """
    count = min(int(pool.covered.sum()) + n, MAX_CLUSTERS, len(pool))
    cluster = cluster_features(pool.features, count, pool.seed)
    sizes, labels = np.bincount(cluster, minlength=count), np.bincount(cluster[pool.covered], minlength=count)
    waiting = {k: _rank_typical(pool, np.flatnonzero(cluster == k)) for k in range(count)}
    chosen: list[Choice] = []
    while len(chosen) < n:
        best = min(
            (k for k, rows in waiting.items() if rows),
            key=lambda k: (sizes[k] < MIN_CLUSTER, labels[k], -sizes[k], k),
            default=None,
        )
        if best is None:
            break
        row, typicality = waiting[best].pop(0)
        labels[best] += 1
        chosen.append(Choice(row, typicality, f"typical of {sizes[best]} similar images"))
    return chosen


def cluster_features(features: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Return the cluster of each row, int64, shape (N,), by k-means."""
    method = MiniBatchKMeans if len(features) > MIN_IMAGES_OF_MINI_BATCHES else KMeans
    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):  # fewer distinct images than clusters
        return method(clusters, n_init=1, random_state=seed).fit(features).labels_.astype(np.int64)


def _rank_typical(pool: Pool, rows: np.ndarray) -> list[tuple[int, float]]:
    """Return the candidates among the `rows` of a cluster with their typicality, the most typical first."""
    candidates = rows[pool.candidates[rows]]
    near = min(TYPICAL_NEIGHBOURS, max(len(rows) // 2, 1))
    distance = np.ones(len(candidates))
    for start in range(0, len(candidates) if len(rows) > 1 else 0, COVERED_AT_ONCE):
        part = candidates[start : start + COVERED_AT_ONCE]
        squares = np.maximum(2 - 2 * pool.features[part] @ pool.features[rows].T, 0)
        squares[rows[None] == part[:, None]] = np.inf  # not of itself
        nearest = np.partition(squares, near - 1, axis=1)[:, :near]
        distance[start : start + COVERED_AT_ONCE] = np.sqrt(nearest).mean(1)
    typicality = 1 / np.maximum(distance, 1e-6)
    order = np.argsort(-typicality, kind="stable")
    return [(int(candidates[i]), float(typicality[i])) for i in order]
