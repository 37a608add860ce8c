"""Product of experts: classifiers times class centroids of the target, balanced and smoothed over neighbours."""

from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import normalize

from transfer.adaptation.refinement.centroids import class_centroids
from transfer.adaptation.refinement.label_propagation import smooth_over_graph
from transfer.adaptation.refinement.optimal_transport import balance_classes, limit_logits
from transfer.semi_supervised.knn_graph import build_neighbour_graph


def combine_experts(  # more than 7 parameters: all belong to one iteration
    features: np.ndarray,
    experts: Sequence[tuple[float, np.ndarray]],
    *,
    known: np.ndarray | None = None,
    temperature: float = 10.0,
    balance: float = 0.8,
    alpha: float = 0.8,
    neighbours: int = 5,
    rounds: int = 10,
) -> np.ndarray:
    """Return class probabilities (N, K) of `features` (N, F) from experts, class centroids and nearest neighbours.

    A product of experts (Hinton 2002): with z the unit features and c the class centroids under q, each round sets

        log q = sum_i weight_i * log q_i + temperature * z . c + constant,

    balances classes softly (`optimal_transport.balance_classes`) and smooths over the nearest-neighbour graph
    (`label_propagation.smooth_over_graph`). The first q is without centroids.

    Parameters
    ----------
    experts : sequence of (float, ndarray of shape (N, K))
        Weight, and logits or log-probabilities of each row; at least one expert.
    known, alpha, neighbours
        See :mod:`transfer.adaptation.refinement.label_propagation`.
    balance : float
        Strength in [0, 1] of the class balancing.
    """
    z = normalize(features)
    graph = build_neighbour_graph(z, neighbours)
    log_q = np.sum([weight * limit_logits(logq) for weight, logq in experts], axis=0)
    q = smooth_over_graph(graph, balance_classes(log_q, balance), known=known, alpha=alpha)
    for _ in range(rounds):
        similarity = temperature * z @ class_centroids(z, q).T
        q = smooth_over_graph(graph, balance_classes(log_q + similarity, balance), known=known, alpha=alpha)
    return q
