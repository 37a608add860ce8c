"""Labels spread over a graph of neighbours: the limit of label propagation, solved (Zhou et al. 2004)."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor

from transfer.semi_supervised.information import refine_probabilities
from transfer.semi_supervised.knn_graph import NearestNeighbours

TOLERANCE = 1e-8  # of the residual, relative to the right-hand side
MAX_ITERATIONS = 1000
BLOCK_COLUMNS = 128  # classes that are solved at once, which bounds the memory


@dataclass(frozen=True)
class PropagationSettings:
    """The graph's number of neighbours, the weight `alpha` of neighbours, and the seeds of unlabelled rows.

    `prior` is the weight of the probe's probabilities among the seeds; a label has weight 1. `refined`: what is
    propagated goes through :func:`transfer.semi_supervised.information.refine_probabilities`.
    """

    neighbours: int
    alpha: float
    prior: float
    refined: bool = False


def make_seeds(settings: PropagationSettings, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the seeds (N, K): one-hot `labels` (N,) where these are known, else the `predicted` probabilities."""
    seeds, known = settings.prior * predicted, labels >= 0
    seeds[known] = np.eye(predicted.shape[1])[labels[known]]
    return seeds


def spread_labels(
    settings: PropagationSettings,
    neighbours: NearestNeighbours,
    predicted: np.ndarray,
    labels: np.ndarray,
    x: Tensor | None = None,
) -> np.ndarray:
    """Return class probabilities (N, K) of all rows, spread from `labels` (N,), -1 where unknown.

    Parameters
    ----------
    settings : PropagationSettings
    neighbours : NearestNeighbours
        Of all rows.
    predicted : ndarray, shape (N, K)
        Probabilities by the probe on these labels.
    labels : ndarray of int64, shape (N,)
    x : Tensor, shape (N, components), optional
        :func:`transfer.semi_supervised.information.project_features`, for settings that are refined.
    """
    seeds = make_seeds(settings, predicted, labels)
    scores = solve_propagation(neighbours.build_graph(settings.neighbours), seeds, settings.alpha)
    probabilities = normalise_scores(scores)
    return refine_probabilities(x, probabilities, labels) if settings.refined and x is not None else probabilities


def solve_propagation(graph: csr_array, seeds: np.ndarray, alpha: float) -> np.ndarray:
    """Return ``F = (I - alpha * graph)^-1 seeds``, float64 (N, K), by conjugate gradients.

    Parameters
    ----------
    graph : csr_array, shape (N, N)
        Symmetric, with eigenvalues in [-1, 1]: :func:`transfer.semi_supervised.knn_graph.build_neighbour_graph`.
    seeds : ndarray, shape (N, K)
        Class scores from which labels spread; zero rows have no label.
    alpha : float
        Weight of the neighbours, in [0, 1).

    Raises
    ------
    ValueError
        `alpha` is outside [0, 1), where the limit does not exist.

    References
    ----------
    D. Zhou et al., "Learning with local and global consistency", 2004, eq. 4 (without the factor 1 - alpha, which
    scales all scores alike).
    """
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha is {alpha}: it must be in [0, 1)")
    blocks = range(0, seeds.shape[1], BLOCK_COLUMNS)
    return np.concatenate([_solve_block(graph, seeds[:, i : i + BLOCK_COLUMNS], alpha) for i in blocks], axis=1)


def normalise_scores(scores: np.ndarray) -> np.ndarray:
    """Return class probabilities (N, K) of propagated `scores`; a row that no label reaches is uniform.

    Examples
    --------
    >>> normalise_scores(np.array([[3.0, 1.0], [0.0, 0.0]])).tolist()
    [[0.75, 0.25], [0.5, 0.5]]
    """
    positive = np.maximum(scores, 0.0)  # rounding may leave -1e-12
    total = positive.sum(1, keepdims=True)
    return np.divide(positive, total, out=np.full_like(positive, 1 / positive.shape[1]), where=total > 0)


def compute_certainty(probabilities: np.ndarray) -> np.ndarray:
    """Return 1 less the entropy of each row of `probabilities` (N, K) as a fraction of its maximum, (N,) in [0, 1].

    The weight of a pseudo-label in Iscen et al. 2019, "Label propagation for deep semi-supervised learning", eq. 11.

    Examples
    --------
    >>> compute_certainty(np.array([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [1.0, 0.0]
    """
    entropy = -(probabilities * np.log(np.maximum(probabilities, np.finfo(float).tiny))).sum(1)
    return np.clip(1 - entropy / np.log(probabilities.shape[1]), 0.0, 1.0)


def _solve_block(graph: csr_array, seeds: np.ndarray, alpha: float) -> np.ndarray:
    residual = np.array(seeds, float)
    solution, direction = np.zeros_like(residual), residual.copy()
    square = (residual**2).sum(0)
    enough = TOLERANCE**2 * square
    for _ in range(MAX_ITERATIONS):
        if (square <= enough).all():
            break
        product = direction - alpha * (graph @ direction)
        step = _divide(square, (direction * product).sum(0))
        solution += step * direction
        residual -= step * product
        before, square = square, (residual**2).sum(0)
        direction = residual + _divide(square, before) * direction
    return solution


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, 0 where the denominator is not above 0: a column that is solved already."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
