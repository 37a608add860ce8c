"""Conformal prediction sets: sets of classes that contain the true class with a requested probability.

The score of a class is 1 - its probability (Sadinle et al. 2019, "Least ambiguous set-valued classifiers with bounded
error levels"). Scores of the true classes of images that the heads were not trained on tell how low the probability of
a true class can be. On Office-31, flowers12 and neu_cls these sets are smaller than adaptive ones (APS, RAPS) of the
same coverage.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transfer.errors import TransferError

MIN_CLASS_ROWS = 100  # a class with fewer shares its threshold with all such classes: its own would be noise


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """What prediction sets of one head are made from.

    Parameters
    ----------
    scores : ndarray, shape (N,)
        1 - probability of the true class, of images that were not trained on.
    labels : ndarray of int64, shape (N,)
        Their true classes.
    classes : int
        Number of classes.
    """

    scores: np.ndarray
    labels: np.ndarray
    classes: int

    @classmethod
    def from_predictions(cls, probabilities: np.ndarray, labels: np.ndarray) -> "PredictionSets":
        """Return those of `probabilities` (N, classes) for images of the classes `labels`, -1 where unknown."""
        known = labels >= 0
        own = probabilities[known, labels[known]]
        return cls(1 - own, labels[known], probabilities.shape[1])

    @cached_property
    def frequent(self) -> np.ndarray:
        """Which classes have a threshold of their own, bool (classes,)."""
        return np.bincount(self.labels, minlength=self.classes) >= MIN_CLASS_ROWS

    def compute_thresholds(self, coverage: float) -> np.ndarray:
        """Return the highest score, (classes,), at which each class is in a set of this `coverage`.

        It is the ``ceil((n + 1) coverage)``-th smallest score of the class's images, or of those of all classes with
        fewer than `MIN_CLASS_ROWS`: then the true class of a further image scores no higher with at least this
        probability (Vovk 2012, "Conditional validity of inductive conformal predictors"). 1, so that each class is in
        every set, where there are too few images to tell.

        Raises
        ------
        TransferError
            `coverage` is not between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise TransferError(f"coverage {coverage:g}: it must be above 0 and below 1, such as 0.9")
        thresholds = np.empty(self.classes)
        rare = ~self.frequent
        thresholds[rare] = compute_quantile(self.scores[rare[self.labels]], coverage)
        for i in np.flatnonzero(self.frequent):
            thresholds[i] = compute_quantile(self.scores[self.labels == i], coverage)
        return thresholds

    def predict_sets(self, probabilities: np.ndarray, coverage: float) -> np.ndarray:
        """Return which classes are in the set of each image, bool (N, classes), from `probabilities` (N, classes).

        The most likely class is in every set, so that sets cover at least as much as the predictions alone.
        """
        members = 1 - probabilities <= self.compute_thresholds(coverage)
        members[np.arange(len(members)), probabilities.argmax(1)] = True
        return members


def compute_quantile(scores: np.ndarray, coverage: float) -> float:
    """Return the ``ceil((n + 1) coverage)``-th smallest of `scores` (n,); 1 if there are fewer.

    Examples
    --------
    >>> compute_quantile(np.arange(10) / 10, 0.8)
    0.8
    >>> compute_quantile(np.arange(3) / 10, 0.8)
    1.0
    """
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)  # 0.9 * 10 is not rounded up to 10
    return 1.0 if rank > len(scores) else float(np.sort(scores)[rank - 1])


def measure_sets(members: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the ``coverage`` and mean ``size`` of the sets `members` (N, classes) for images of known `labels`.

    A label beyond the classes, which no training image had, is in no set.
    """
    known = labels >= 0
    if not known.any():
        return {}
    covered = np.pad(members[known], ((0, 0), (0, 1)))[np.arange(known.sum()), labels[known].clip(max=members.shape[1])]
    return {"coverage": float(covered.mean()), "size": float(members[known].sum(1).mean())}


def pair_probabilities(objects: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Return the probabilities (N, domains * objects) of pairs, ordered by domain, then object: their products."""
    return (domains[:, :, None] * objects[:, None, :]).reshape(len(objects), -1)


def pair_labels(objects: np.ndarray, domains: np.ndarray, count: int) -> np.ndarray:
    """Return the index (N,) of pairs of `objects` (of `count`) and `domains`, -1 where one of them is unknown."""
    return np.where((objects >= 0) & (domains >= 0), domains * count + objects, -1)
