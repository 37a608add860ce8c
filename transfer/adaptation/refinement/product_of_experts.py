"""The composition: classifiers, and centroids of the target's own rows, multiplied, balanced and smoothed."""

from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import normalize

from transfer.adaptation.refinement.centroids import centroids
from transfer.adaptation.refinement.label_propagation import neighbour_graph, spread
from transfer.adaptation.refinement.optimal_transport import held, soft_balance


def combine(
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
    """Return the target's class probabilities on which experts, centroids and neighbours agree.

    A product of experts (Hinton 2002): with z the unit features, each round takes the centroids c of the present q and

        log q = sum_i weight_i * log q_i + temperature * z . c + constant,

    then balances classes softly (`optimal_transport.soft_balance`) and smooths along the graph
    of near rows (:func:`transfer.adaptation.refinement.label_propagation.spread`). The first q has no centroids yet.

    Parameters
    ----------
    features : ndarray, shape (N, F)
        Of the target, aligned.
    experts : sequence of (float, ndarray of shape (N, K))
        At least one: its weight, and its logits or log-probabilities of each row.
    known : ndarray of int64, shape (N,), optional
        Class of each row whose class is known, else -1.
    temperature : float
        Weight of the centroids.
    balance : float
        Strength in [0, 1] of the balance.
    alpha, neighbours
        See :func:`transfer.adaptation.refinement.label_propagation.propagate`.
    rounds : int

    Returns
    -------
    ndarray, shape (N, K)
        Rows sum to 1.
    """
    z = normalize(features)
    graph = neighbour_graph(z, neighbours)
    said = np.sum([weight * held(logq) for weight, logq in experts], axis=0)
    q = spread(graph, soft_balance(said, balance), known=known, alpha=alpha)
    for _ in range(rounds):
        near = temperature * z @ centroids(z, q).T
        q = spread(graph, soft_balance(said + near, balance), known=known, alpha=alpha)
    return q
