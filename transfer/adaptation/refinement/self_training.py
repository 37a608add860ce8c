"""Growing pseudo-labels: a probe learns from the source and from ever more of what it says itself of the target."""

import numpy as np
from scipy.linalg import solve
from sklearn.preprocessing import normalize
from tqdm import tqdm

from transfer.adaptation.refinement.label_propagation import clamped
from transfer.adaptation.refinement.optimal_transport import soft_balance
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence

RIDGE = 0.3  # penalty of the probe, relative to the features' mean variance: of 0.1, 0.3 and 1 the best on Office-31
SHARPNESS = 10.0  # factor from the probe's outputs, which run from 0 to 1, to logits
BALANCE = 0.8
LEAST = 1e-3  # variance of unit rows taken at least: rows that are all the same still have a solution


def grow(
    source: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    q: np.ndarray,
    *,
    known: np.ndarray | None = None,
    rounds: int = 10,
    first: float = 0.2,
) -> np.ndarray:
    """Return the target's class probabilities by a probe of source and pseudo-labelled target.

    Self-training whose share grows from `first` to 1, class by class, over `rounds` (class-balanced self-training, Zou
    et al. 2018; growing pseudo-labels as in iCAN, Zhang et al. 2018): in each class the surest share of the
    rows called so joins the source, and the target weighs that share of what the source does. The probe is ridge
    regression onto one-hot labels, which has a closed form; what it says is softly balanced.

    Parameters
    ----------
    source : ndarray, shape (Ns, F)
    labels : ndarray of int, shape (Ns,)
        Class of each source row, all known.
    target : ndarray, shape (Nt, F)
    q : ndarray, shape (Nt, K)
        Class probabilities to begin with.
    known : ndarray of int64, shape (Nt,), optional
        Class of each target row whose class is known, else -1: such a row is sure from the first round.
    rounds : int
    first : float
        Share of the target in the first round, in (0, 1].

    Returns
    -------
    ndarray, shape (Nt, K)
        Rows sum to 1.
    """
    asked, classes = normalize(target), q.shape[1]
    q, taught = clamped(q, known), _moments(normalize(source), labels, classes)
    for share in tqdm(np.linspace(first, 1.0, rounds), desc="pseudo-labels", disable=None, delay=2):
        rows = surest(q, share)
        weight, bias = _probe(taught + share * _moments(asked[rows], q.argmax(1)[rows], classes), classes)
        q = clamped(soft_balance(SHARPNESS * (asked @ weight + bias), BALANCE), known)
    return q


def surest(q: np.ndarray, share: float) -> np.ndarray:
    """Return the rows, in order, that are among the surest `share` (rounded up) of those called by the same class.

    Examples
    --------
    >>> surest(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]), 0.5)
    array([0, 2, 3])
    """
    called, sure = q.argmax(1), q.max(1)
    order = np.lexsort((-sure, called))  # class by class, surest first
    sizes = np.bincount(called, minlength=q.shape[1])
    place = np.arange(len(q)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < np.ceil(share * sizes[called[order]])])


def _moments(x: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the mean products (F + 1, F + 1 + K) of `x` (N, F) and a constant with themselves and one-hot labels."""
    x = np.c_[x, np.ones(len(x), x.dtype)]
    return (x.T @ np.c_[x, np.eye(classes, dtype=x.dtype)[labels]]).astype(float) / len(x)


def _probe(moments: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (F, K) and bias (K,) of ridge regression from a weighted sum of :func:`_moments`; bias is free."""
    products, answers = moments[:, :-classes], moments[:, -classes:]
    products, answers = products / products[-1, -1], answers / products[-1, -1]
    width = len(products) - 1
    variance = (np.trace(products[:-1, :-1]) - products[-1, :-1] @ products[-1, :-1]) / width
    products[np.arange(width), np.arange(width)] += RIDGE * max(variance, LEAST / width)
    solution = solve(products, answers, assume_a="pos")
    return solution[:-1], solution[-1]


def self_train(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) after :func:`grow`."""
    features, q, known = evidence.all_target()
    grown = grow(evidence.source_features, evidence.source_labels, features, q, known=known)
    return grown[: len(evidence.target_logits)]


register_method("growing", "self-training on a growing share of the target (Zou et al. 2018)", refine=self_train)
