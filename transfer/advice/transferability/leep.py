"""LEEP and NCE: how well a network's original classifier predicts the new classes."""

import numpy as np

PRIOR_COUNTS = 10.0 ** np.arange(-2, 4)  # images that may be added to every original class: the best number is used


def leep(probabilities: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> float:
    """Return the mean log-likelihood of the labels given the original classifier (Nguyen et al. 2020, eq. 2).

    It is in nats, at most 0; see :func:`explain_entropy` for a scale that sets of different classes share.

    A new class y is predicted by sum over z of P(y | z) p(z | image), with P(y | z) counted from the images themselves.
    With few images per class that score is too high, also for random labels. With `folds` each image is predicted from
    counts of the other folds, to which every original class adds a number of images, distributed over the labels as all
    images are (an m-estimate, Cestnik 1990). The number that predicts best is used. Random labels then score about as
    without any prediction.

    Parameters
    ----------
    probabilities : ndarray, shape (N, K)
        Of the K original classes.
    labels : ndarray of int64, shape (N,)
        -1 where unknown: such rows are ignored.
    folds : ndarray of int64, shape (N,), optional
        See :func:`transfer.advice.transferability.folds.assign_folds`.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1])
    >>> round(leep(np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]]), labels), 3)
    -0.295
    """
    known = labels >= 0
    p = np.asarray(probabilities)[known].astype(float)
    _, label = np.unique(labels[known], return_inverse=True)
    one_hot = np.eye(label.max(initial=0) + 1)[label]
    if folds is None:
        return float(np.log(_likelihood(p, one_hot.T @ p, label)).mean())
    fold = folds[known]
    logs = np.empty((len(PRIOR_COUNTS), len(label)))
    for out in np.unique(fold):
        held, rest = fold == out, fold != out
        share = one_hot[rest].sum(0) + 1.0
        joint = one_hot[rest].T @ p[rest]
        for i, prior in enumerate(PRIOR_COUNTS):
            before = prior * (share / share.sum())[:, None]
            logs[i, held] = np.log(_likelihood(p[held], joint + before, label[held]))
    return float(logs.mean(1).max())


def nce(predictions: np.ndarray, labels: np.ndarray, folds: np.ndarray | None = None) -> float:
    """Return minus the entropy of the labels given the original classifier's hard predictions (Tran et al. 2019).

    It equals :func:`leep` for probabilities of 0 and 1.

    Parameters
    ----------
    predictions : ndarray of int, shape (N,)
        The most probable original class of each image.
    labels, folds
        See :func:`leep`.

    Examples
    --------
    >>> nce(np.array([7, 7, 3, 3]), np.array([0, 0, 1, 1]))
    0.0
    """
    seen, prediction = np.unique(predictions, return_inverse=True)
    return leep(np.eye(len(seen))[prediction], labels, folds)


def explain_entropy(score: float, labels: np.ndarray) -> float:
    """Return the share of the labels' entropy that a :func:`leep` or :func:`nce` score explains.

    It is 1 where the original classifier determines the labels, 0 where it has no information about them, below 0 where
    counts of other folds mislead.

    Examples
    --------
    >>> explain_entropy(0.0, np.array([0, 1])), explain_entropy(np.log(0.5), np.array([0, 1]))
    (1.0, 0.0)
    """
    share = np.unique(labels[labels >= 0], return_counts=True)[1] / max((labels >= 0).sum(), 1)
    entropy = -float((share * np.log(share)).sum())
    return 1 + float(score) / entropy if entropy > 0 else 0.0


def _likelihood(p: np.ndarray, joint: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the probability of each `label` given `p` (N, K) of its image and the counts `joint` (classes, K)."""
    total = joint.sum(0)
    given = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)  # 0 for original classes without images
    return np.einsum("ik,ik->i", p, given[label])
