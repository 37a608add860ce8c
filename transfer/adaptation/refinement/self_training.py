"""Self-training: a classifier of the source and of a growing share of its own target predictions."""

import numpy as np
from scipy.linalg import solve
from sklearn.preprocessing import normalize
from tqdm.auto import tqdm

from transfer.adaptation.refinement.label_propagation import clamp_known
from transfer.adaptation.refinement.optimal_transport import balance_classes
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence

RIDGE = 0.3  # L2 penalty, as a fraction of the features' mean variance: of 0.1, 0.3 and 1 the best on Office-31
LOGIT_SCALE = 10.0  # factor from the ridge regression's outputs, in [0, 1], to logits
BALANCE = 0.8  # strength of class balancing, in [0, 1]
MIN_UNIT_VARIANCE = 1e-3  # floor of the variance of unit rows, so that identical rows have a solution


def grow_pseudo_labels(
    source: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    q: np.ndarray,
    *,
    known: np.ndarray | None = None,
    rounds: int = 10,
    first: float = 0.2,
) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) from a classifier of the source and the pseudo-labelled target.

    Class-balanced self-training (Zou et al. 2018) with growing pseudo-labels (as in iCAN, Zhang et al. 2018): over
    `rounds`, the share of pseudo-labelled target rows grows from `first` to 1. Each round takes that share of the most
    confident rows of every predicted class, and weights the target by it, relative to the source. The classifier is
    ridge regression onto one-hot labels, which has a closed form; its predictions are softly balanced.

    Parameters
    ----------
    source, target : ndarray, shape (Ns, F) and (Nt, F)
    labels : ndarray of int, shape (Ns,)
        Class of each source row, all known.
    q : ndarray, shape (Nt, K)
        Initial class probabilities.
    known : ndarray of int64, shape (Nt,), optional
        Known class of each target row, else -1. A known row is certain from the first round.
    """
    target, classes = normalize(target), q.shape[1]
    q, source_moments = clamp_known(q, known), _moments(normalize(source), labels, classes)
    for share in tqdm(np.linspace(first, 1.0, rounds), desc="pseudo-labels", disable=None, delay=2):
        rows = most_confident_rows(q, share)
        target_moments = _moments(target[rows], q.argmax(1)[rows], classes)
        weight, bias = _ridge_regression(source_moments + share * target_moments, classes)
        q = clamp_known(balance_classes(LOGIT_SCALE * (target @ weight + bias), BALANCE), known)
    return q


def most_confident_rows(q: np.ndarray, share: float) -> np.ndarray:
    """Return the sorted indices of the most confident `share` (rounded up) of the rows of each predicted class.

    Examples
    --------
    >>> most_confident_rows(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]), 0.5)
    array([0, 2, 3])
    """
    predicted, confidence = q.argmax(1), q.max(1)
    order = np.lexsort((-confidence, predicted))  # by class, most confident first
    sizes = np.bincount(predicted, minlength=q.shape[1])
    rank = np.arange(len(q)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[rank < np.ceil(share * sizes[predicted[order]])])


def _moments(x: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the mean products (F + 1, F + 1 + K) of `x` (N, F) and a constant with themselves and one-hot labels."""
    x = np.c_[x, np.ones(len(x), x.dtype)]
    return (x.T @ np.c_[x, np.eye(classes, dtype=x.dtype)[labels]]).astype(float) / len(x)


def _ridge_regression(moments: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (F, K) and unpenalised bias (K,) of ridge regression from a weighted sum of :func:`_moments`."""
    products, goals = moments[:, :-classes], moments[:, -classes:]
    products, goals = products / products[-1, -1], goals / products[-1, -1]
    width = len(products) - 1
    variance = (np.trace(products[:-1, :-1]) - products[-1, :-1] @ products[-1, :-1]) / width
    products[np.arange(width), np.arange(width)] += RIDGE * max(variance, MIN_UNIT_VARIANCE / width)
    solution = solve(products, goals, assume_a="pos")
    return solution[:-1], solution[-1]


def self_train(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) after :func:`grow_pseudo_labels`."""
    features, q, known = evidence.target_with_labelled()
    grown = grow_pseudo_labels(evidence.source_features, evidence.source_labels, features, q, known=known)
    return grown[: len(evidence.target_logits)]


register_method("growing", "self-training on a growing share of the target (Zou et al. 2018)", refine=self_train)
