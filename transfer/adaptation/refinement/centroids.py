"""Class centroids of the target from its own rows: the label refinement of SHOT (Liang, Hu and Feng 2020)."""

import numpy as np
from scipy.special import softmax
from sklearn.preprocessing import normalize

from transfer.adaptation.refinement.label_propagation import clamped
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence

TIE = 1e-5  # cosines that differ by less are the same but for rounding


def centroids(features: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return each class's mean row of unit `features` (N, F) under `q` (N, K), as a unit vector, shape (K, F).

    Liang et al. 2020, eq. 4 (and 6, where `q` is hard), but for the length, to which cosines are blind. Zero for a
    class without mass.
    """
    mass = q.sum(0)
    shares = np.divide(q, mass, out=np.zeros(q.shape), where=mass > 0)
    return normalize(shares.astype(features.dtype).T @ features)


def refine(
    features: np.ndarray,
    q: np.ndarray,
    *,
    known: np.ndarray | None = None,
    rounds: int = 1,
    temperature: float = 10.0,
) -> np.ndarray:
    """Return the class probabilities of each row by its cosines to centroids that its own domain makes.

    Centroids come from the probabilities `q` (Liang et al. 2020, eq. 4), each row is labelled by the nearest in
    cosine distance (eq. 5), and those labels make the next centroids (eq. 6), `rounds` times. What is returned is
    softmax(temperature * cosine): its largest is the label of eq. 6. A class that loses all rows is out: probability
    0. Where centroids are as near as each other (those of a single row, or of rows all the same), `q` decides.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    q : ndarray, shape (N, K)
        Class probabilities.
    known : ndarray of int64, shape (N,), optional
        Class of each row whose class is known, else -1: such a row counts for this class in every round.
    rounds : int
        1 is the paper's; 0 keeps the centroids of eq. 4.
    temperature : float
        Factor on the cosines.

    Returns
    -------
    ndarray, shape (N, K)
        Rows sum to 1.

    Examples
    --------
    The third row is nearer to the first class's centroid, whatever it was called before.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.9, 0.0]])
    >>> refine(rows, np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.9, 0.1]])).argmax(1)
    array([0, 1, 0, 0])
    """
    z = normalize(features)
    q = clamped(q, known)
    near = _cosines(z, q) + TIE * q
    for _ in range(rounds):
        near = _cosines(z, clamped(np.eye(q.shape[1])[near.argmax(1)], known)) + TIE * q
    return clamped(softmax(temperature * near, axis=1), known)


def _cosines(z: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return (N, K) cosines of rows to centroids, minus infinity to those of classes without mass."""
    return np.where(q.sum(0) > 0, z @ centroids(z, q).T, -np.inf).astype(float)


def refine_by_centroids(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) after :func:`refine`."""
    features, q, known = evidence.all_target()
    return refine(features, q, known=known)[: len(evidence.target_logits)]


register_method(
    "centroids", "cosine centroids refined on the target (Liang et al. 2020, eq. 4-6)", refine=refine_by_centroids
)
