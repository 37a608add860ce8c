"""Find labels that are likely wrong, by confident learning."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelNoise:
    """The number of likely wrong labels, and suspects: rows predicted with confidence as another class.

    The number of suspects differs from `count`, which also covers rows without a confident prediction.
    """

    count: int  # estimated number of wrong labels
    share: float  # the same as a fraction of the known labels
    suspects: np.ndarray  # int64, (S,): rows, the most suspicious first
    called: np.ndarray  # int64, (S,): the more likely class of each suspect


def find_label_noise(probabilities: np.ndarray, labels: np.ndarray) -> LabelNoise:
    """Return the number of likely wrong labels and the suspects, by confident learning (Northcutt et al. 2021, sec. 3).

    A row is confidently of a class if its probability is at least the mean probability of that class over the rows with
    that label; of several such classes the most probable counts. The counts, scaled to the number of rows of each label
    (eq. 3), estimate the joint distribution of label and true class; its off-diagonal part is noise. The result is only
    as good as the probabilities: classes that the features do not separate look mislabelled. Suspects are ordered by
    the difference between the other class's probability and the label's.

    Parameters
    ----------
    probabilities : ndarray, shape (N, C)
        By models that were not trained on the row: see :func:`transfer.advice.transferability.crossval.cross_validate`.
    labels : ndarray of int64, shape (N,)
        -1 where unknown: such rows are ignored.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.2, 0.8]])
    >>> find_label_noise(p, np.array([0, 0, 0, 1, 1, 1]))
    LabelNoise(count=1, share=0.16666666666666666, suspects=array([2]), called=array([1]))
    """
    rows = np.flatnonzero(labels >= 0)
    none = np.array([], np.int64)
    if not len(rows):
        return LabelNoise(0, 0.0, none, none)
    classes, label, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    p = probabilities[np.ix_(rows, classes)].astype(float)
    own = p[np.arange(len(p)), label]
    threshold = np.bincount(label, own) / sizes
    confident = np.where(p >= threshold - 1e-12, p, -1.0)  # identical rows must not be below their mean
    called = confident.argmax(1)
    counts_for = confident.max(1) >= 0
    joint = np.zeros((len(classes), len(classes)))
    np.add.at(joint, (label[counts_for], called[counts_for]), 1.0)
    of_label = joint.sum(1)
    right = np.divide(np.diag(joint), of_label, out=np.ones(len(classes)), where=of_label > 0)
    wrong = float(((1 - right) * sizes).sum())
    suspects = np.flatnonzero(counts_for & (called != label))
    margin = p[suspects, called[suspects]] - own[suspects]
    suspects = suspects[np.argsort(-margin, kind="stable")]
    return LabelNoise(round(wrong), wrong / len(rows), rows[suspects], classes[called[suspects]])
