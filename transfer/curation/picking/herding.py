"""MaxHerding and Uncertainty Herding: images similar to many that no chosen image is similar to.

Two measures of similarity: a Gaussian kernel of the features, as in the papers, and how far a label would spread along
the graph of nearest neighbours. The second is the default, since it is along this graph that
``transfer train --unlabelled`` spreads labels.
"""

import numpy as np
import torch

from transfer.curation.picking.coverage import Similarity, choose_by_coverage
from transfer.curation.picking.pool import Choice, Pool
from transfer.curation.picking.uncertainty import describe_doubt
from transfer.semi_supervised.knn_graph import build_neighbour_graph

# Rows with a dense matrix of similarities along the graph: three of 144 MB are in memory at once, and the time grows
# with the third power of the rows.
MAX_GRAPH_ROWS = 6000
# Kernel exp(-d² / 2 / BANDWIDTH²) of distances d between rows of length 1.
BANDWIDTH = 0.7
NEIGHBOURS_OF_GRAPH, ALPHA = 10, 0.9  # of the graph, and the share of a label that moves on at each step


def choose_by_max_herding(pool: Pool, n: int) -> list[Choice]:
    """Return the `n` candidates that greedily add most to the mean similarity of an image to the nearest chosen one.

    References
    ----------
    W. Bae, J. Noh, D. J. Sutherland, "Generalized coverage for more robust low-budget active learning", 2024.
    """
    return _describe(pool, choose_by_coverage(pool, n, make_gaussian_similarity(pool.features)))


def choose_by_uncertainty_herding(pool: Pool, n: int) -> list[Choice]:
    """Return the same where an image counts by its uncertainty, 1 less the margin; without labels all count alike.

    While labels are few, all is uncertain, and coverage decides; as they grow, uncertainty does.

    References
    ----------
    W. Bae, G. L. Oliveira, D. J. Sutherland, "Uncertainty herding: one active learning method for all label budgets",
    2025.
    """
    found = choose_by_coverage(pool, n, make_gaussian_similarity(pool.features), 1 - pool.margins)
    return _describe(pool, found)


def choose_by_graph_herding(pool: Pool, n: int) -> list[Choice]:
    """Return the same with similarities of the graph of nearest neighbours, see :func:`make_graph_similarity`.

    Of more than `MAX_GRAPH_ROWS` rows a random sample takes part. More than half as many choices at once are those of
    :func:`choose_by_uncertainty_herding`.
    """
    if len(pool) > MAX_GRAPH_ROWS < 2 * n:
        return choose_by_uncertainty_herding(pool, n)
    rows = sample_pool(pool, MAX_GRAPH_ROWS)
    part = pool.take(rows)
    found = choose_by_coverage(part, n, make_graph_similarity(part.features), 1 - part.margins)
    return _describe(pool, [(int(rows[row]), gain) for row, gain in found])


def sample_pool(pool: Pool, most: int) -> np.ndarray:
    """Return all rows of `pool`, or a random sample of at most `most` covered rows and candidates, half of it covered.

    Other rows, near-duplicates of candidates, are left out of a sample.
    """
    if len(pool) <= most:
        return np.arange(len(pool))
    rng = np.random.default_rng(pool.seed)
    covered = rng.permutation(np.flatnonzero(pool.covered))[: most // 2]
    candidates = rng.permutation(np.flatnonzero(pool.candidates))[: most - len(covered)]
    return np.sort(np.concatenate([covered, candidates]))


def make_gaussian_similarity(z: np.ndarray) -> Similarity:
    """Return the Gaussian kernel of rows of length 1."""

    def similarity(rows: np.ndarray) -> np.ndarray:
        kernel: np.ndarray = np.exp((z[rows] @ z.T - 1) / np.float32(BANDWIDTH**2))
        return kernel

    return similarity


def make_graph_similarity(z: np.ndarray) -> Similarity:
    """Return how far a label of one row spreads to the others by label propagation, 1 to itself.

    It is ``A_ij / sqrt(A_ii A_jj)`` of ``A = (I - ALPHA S)^-1``, where S is the normalised graph of nearest neighbours
    (Zhou et al. 2004): the cosine of rows i and j in the space of that kernel.
    """
    graph = torch.from_numpy(build_neighbour_graph(z, NEIGHBOURS_OF_GRAPH).astype(np.float32).toarray())
    graph.mul_(-ALPHA).diagonal().add_(1)
    spread = torch.cholesky_inverse(torch.linalg.cholesky(graph))
    root = spread.diagonal().rsqrt()
    kernel = spread.mul_(root).mul_(root[:, None]).numpy()
    return lambda rows: kernel[rows]


def _describe(pool: Pool, found: list[tuple[int, float]]) -> list[Choice]:
    doubt = (lambda row: "") if pool.probabilities is None else (lambda row: f"; {describe_doubt(pool, row)}")
    return [Choice(row, gain, f"stands for {100 * gain:.1f} % of the images{doubt(row)}") for row, gain in found]
