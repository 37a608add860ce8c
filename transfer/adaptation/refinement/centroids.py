"""Class centroids of the target's own features: the label refinement of SHOT (Liang, Hu and Feng 2020)."""

import numpy as np
from scipy.special import softmax
from sklearn.preprocessing import normalize

from transfer.adaptation.refinement.label_propagation import clamp_known
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence

TIE = 1e-5  # weight of the given probabilities where cosines are equal but for rounding


def class_centroids(features: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return each class's mean row of unit `features` (N, F) under `q` (N, K), as a unit vector, shape (K, F).

    Liang et al. 2020, eq. 4 (and 6, if `q` is one-hot), up to the length, which does not affect cosines. Zero for a
    class without probability mass.
    """
    mass = q.sum(0)
    shares = np.divide(q, mass, out=np.zeros(q.shape), where=mass > 0)
    return normalize(shares.astype(features.dtype).T @ features)


def refine_labels(
    features: np.ndarray,
    q: np.ndarray,
    *,
    known: np.ndarray | None = None,
    rounds: int = 1,
    temperature: float = 10.0,
) -> np.ndarray:
    """Return class probabilities (N, K) from the cosines of `features` (N, F) to class centroids.

    Centroids come from the probabilities `q` (N, K) (Liang et al. 2020, eq. 4), each row gets the label of the nearest
    one in cosine distance (eq. 5), and these labels give the next centroids (eq. 6), `rounds` times (1 in the paper).
    The result is softmax(temperature * cosine), whose maximum is the label of eq. 6. A class that loses all rows has
    probability 0. Where centroids are equally near (of a single row, or of identical rows), `q` decides. Rows with a
    known class (see :func:`~transfer.adaptation.refinement.label_propagation.clamp_known`) have it in every round.

    Examples
    --------
    The third row is nearest to the first class's centroid, whatever its probabilities.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.9, 0.0]])
    >>> refine_labels(rows, np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.9, 0.1]])).argmax(1)
    array([0, 1, 0, 0])
    """
    z = normalize(features)
    q = clamp_known(q, known)
    near = _cosines(z, q) + TIE * q
    for _ in range(rounds):
        near = _cosines(z, clamp_known(np.eye(q.shape[1])[near.argmax(1)], known)) + TIE * q
    return clamp_known(softmax(temperature * near, axis=1), known)


def _cosines(z: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the cosines (N, K) of rows to centroids, minus infinity for classes without probability mass."""
    return np.where(q.sum(0) > 0, z @ class_centroids(z, q).T, -np.inf).astype(float)


def refine_by_centroids(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) after :func:`refine_labels`."""
    features, q, known = evidence.target_with_labelled()
    return refine_labels(features, q, known=known)[: len(evidence.target_logits)]


register_method(
    "centroids", "cosine centroids refined on the target (Liang et al. 2020, eq. 4-6)", refine=refine_by_centroids
)
