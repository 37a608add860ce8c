"""BADGE: k-means++ on gradients of the loss, which are large where uncertain, and differ where images do."""

import numpy as np

from transfer.curation.picking.pool import Choice, Pool
from transfer.curation.picking.uncertainty import describe_doubt


def choose_diverse_gradients(pool: Pool, n: int) -> list[Choice]:
    """Return `n` candidates by the seeding of k-means++ on their gradient embeddings.

    The embedding of an image is the gradient of the cross-entropy in the weights of the last layer, had the likeliest
    class been its label: the outer product of ``p - onehot`` and the features. It is never formed: squared distances
    follow from products of both factors.

    References
    ----------
    J. T. Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", 2020, algorithm 1.
    """
    assert pool.probabilities is not None
    rows = np.flatnonzero(pool.candidates)
    z, error = pool.features[rows], pool.probabilities[rows].copy()
    error[np.arange(len(rows)), error.argmax(1)] -= 1
    squares = (error**2).sum(1) * (z**2).sum(1)

    def measure_distances(place: int) -> np.ndarray:
        products = (error @ error[place]) * (z @ z[place])
        return np.maximum(squares + squares[place] - 2 * products, 0)

    place, score = int(squares.argmax()), float(squares.max(initial=0))  # the first: the largest gradient
    chosen: list[Choice] = []
    distances = np.full(len(rows), np.inf)
    taken, rng = np.zeros(len(rows), bool), np.random.default_rng(pool.seed)
    while len(chosen) < min(n, len(rows)):
        taken[place] = True
        chosen.append(Choice(int(rows[place]), score, describe_doubt(pool, rows[place])))
        distances = np.minimum(distances, measure_distances(place))
        distances[taken] = 0
        chances = distances if distances.sum() > 0 else (~taken).astype(float)  # the rest is identical
        if not chances.any():
            break
        place = int(rng.choice(len(rows), p=chances / chances.sum()))
        score = float(distances[place])
    return chosen
