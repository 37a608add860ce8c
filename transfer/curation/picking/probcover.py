"""ProbCover: images whose balls of one radius cover most others (Yehuda et al. 2022)."""

import numpy as np

from transfer.curation.picking.coverage import COVERED_AT_ONCE, choose_by_coverage
from transfer.curation.picking.pool import Choice, Pool
from transfer.curation.picking.typiclust import MAX_CLUSTERS, cluster_features

PURITY = 0.95  # share of the balls that must hold images of one cluster only, as in the paper


def choose_covering_balls(pool: Pool, n: int) -> list[Choice]:
    """Return the `n` candidates whose balls greedily cover most images that no ball covers yet.

    The radius is the largest at which `PURITY` of the balls are pure: all images within belong to one cluster. Clusters
    stand for classes, and there are as many as labels, old and new.

    References
    ----------
    O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active learning through a covering lens", 2022, algorithm 1.
    """
    clusters = min(int(pool.covered.sum()) + n, MAX_CLUSTERS, len(pool))
    least = choose_radius(pool.features, cluster_features(pool.features, clusters, pool.seed))
    z = pool.features

    def similarity(rows: np.ndarray) -> np.ndarray:
        return (z[rows] @ z.T >= least).astype(np.float32)

    found = choose_by_coverage(pool, n, similarity)
    return [Choice(row, gain, f"covers {round(gain * len(pool))} more images") for row, gain in found]


def choose_radius(features: np.ndarray, cluster: np.ndarray) -> float:
    """Return the radius of the balls as the least cosine (of rows of length 1) to the image in the middle.

    A ball is pure as long as it does not reach the nearest image of another cluster.
    """
    nearest = np.empty(len(features), np.float32)
    for start in range(0, len(features), COVERED_AT_ONCE):
        rows = slice(start, start + COVERED_AT_ONCE)
        cosines = features[rows] @ features.T
        cosines[cluster[rows, None] == cluster[None]] = -1
        nearest[rows] = cosines.max(1)
    return float(np.nextafter(np.quantile(nearest, PURITY), np.float32(2)))
