"""The expected accuracy of a model on images without labels, with an interval, and an alarm where it is lower."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from transfer.evaluation.label_free.output_shift import compare_outputs
from transfer.evaluation.label_free.second_opinion import SecondOpinion
from transfer.evaluation.label_free.transport import estimate_by_transport

SHIFTED = "agreement of three classifiers, and confidence optimal transport"
SIMILAR = "agreement of three classifiers, and thresholded confidence"
LEVEL = 0.9  # of intervals
NORMAL_QUANTILE = 1.645  # at that level
MIN_IMAGES = 10  # of fewer, mean and spread of the features say nothing
# The following were set on transformed photographs of flowers12 and neu_cls: `../README.md` says how.
AGREED_ERRORS = 0.03  # share of wrong predictions that both estimates count as correct
INTERVAL_FACTOR = 0.31  # half width of 90 % intervals over p (1 - p), if both estimates say p of many images
LEAST_VARIANCE = 0.02  # of p (1 - p): an expected accuracy of 1 is not certain
MAX_P_VALUE = 0.01  # up to which outputs are taken to differ


@dataclass(frozen=True)
class ExpectedAccuracy:
    """An accuracy that no label was needed for.

    Parameters
    ----------
    accuracy, low, high : float
        The expectation, and the ends of its interval at `LEVEL`.
    n : int
        Images.
    held_out : float
        Accuracy on images like those of the training set.
    agreement, transport, confidence : float
        Estimates; of the last two one is combined with the first.
    p_value : float
        Of the model's outputs being distributed as on held-out images.
    """

    accuracy: float
    low: float
    high: float
    n: int
    held_out: float
    agreement: float
    transport: float
    confidence: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether the images differ from the training images."""
        return self.p_value < MAX_P_VALUE

    @property
    def alarm(self) -> bool:
        """Whether the images differ from the training images, and held-out accuracy is above the interval."""
        return self.differs and self.high < self.held_out

    def record(self) -> dict[str, Any]:
        """Return the entry of a result."""
        rounded = {name: round(getattr(self, name), 6) for name in ("agreement", "transport", "confidence")}
        return {
            "accuracy": round(self.accuracy, 6),
            "interval": [round(self.low, 6), round(self.high, 6)],
            "level": LEVEL,
            "n": self.n,
            "held_out_accuracy": round(self.held_out, 6),
            "method": SHIFTED if self.differs else SIMILAR,
            "alarm": self.alarm,
            "evidence": rounded | {"outputs_p_value": float(f"{self.p_value:.3g}")},
        }


@dataclass(frozen=True, eq=False)
class AccuracyReference:
    """What the accuracy of a head is expected from; a run keeps it.

    Parameters
    ----------
    probabilities : ndarray of float16, shape (M, classes)
        Of held-out images, by heads that were not trained on them.
    labels : ndarray of int64, shape (M,)
    opinion : SecondOpinion
    """

    probabilities: np.ndarray
    labels: np.ndarray
    opinion: SecondOpinion

    @property
    def accuracy(self) -> float:
        """The accuracy on the held-out images."""
        return float((self.probabilities.argmax(1) == self.labels).mean())

    def expect(
        self, probabilities: np.ndarray, features: np.ndarray, ensemble: np.ndarray | None = None
    ) -> ExpectedAccuracy | None:
        """Return the expected accuracy on images with these `probabilities` (N, classes) and `features` (N, F).

        With the probabilities (N, classes) of an `ensemble`, of which the model is a member, that of the ensemble. None
        with fewer than `MIN_IMAGES`, or if a number is not finite.
        """
        evaluated = probabilities if ensemble is None else ensemble
        if len(probabilities) < MIN_IMAGES or not (np.isfinite(probabilities).all() and np.isfinite(features).all()):
            return None
        shares = np.bincount(self.labels, minlength=probabilities.shape[1]) / len(self.labels)
        agreement = self.opinion.measure_agreement(features, evaluated.argmax(1))
        transport = estimate_by_transport(evaluated.astype(float), shares)
        # Both as the run stores them: in float16 the smallest probabilities are 0.
        known, new = (each.astype(np.float16).astype(float) for each in (self.probabilities, probabilities))
        confidence = estimate_by_confidence(known.max(1), self.accuracy, new.max(1))
        p_value = compare_outputs(known, new)
        shifted = p_value < MAX_P_VALUE
        accuracy = combine_estimates(agreement, transport) if shifted else (agreement + confidence) / 2
        half = compute_half_width(accuracy, len(new), agreement - (transport if shifted else confidence))
        low, high = max(0.0, accuracy - half), min(1.0, accuracy + half)
        return ExpectedAccuracy(accuracy, low, high, len(new), self.accuracy, agreement, transport, confidence, p_value)


def average_expected(members: Sequence[ExpectedAccuracy]) -> ExpectedAccuracy:
    """Return the expected accuracy of an ensemble from what its `members` expect of it: the means of all numbers.

    The p-value is the median: outputs differ where they do for most members.
    """
    names = ("accuracy", "low", "high", "held_out", "agreement", "transport", "confidence")
    means = {name: fmean(getattr(member, name) for member in members) for name in names}
    return ExpectedAccuracy(n=members[0].n, p_value=median(member.p_value for member in members), **means)


def estimate_by_confidence(known: np.ndarray, accuracy: float, new: np.ndarray) -> float:
    """Return the share of confidences `new` (N,) above the threshold at which that of `known` (M,) is their `accuracy`.

    Average thresholded confidence (ATC, Garg et al. 2022, eq. 1 and 2, with the largest probability).

    Examples
    --------
    >>> estimate_by_confidence(np.array([0.5, 0.7, 0.9, 0.95]), 0.75, np.array([0.6, 0.8]))
    0.5
    """
    return float((new >= np.quantile(known, 1 - accuracy)).mean())


def combine_estimates(agreement: float, transport: float) -> float:
    """Return the expected accuracy under a shift: the agreement, or less where the transport estimate is lower.

    The transport estimate counts the more, the lower the agreement. It never raises the agreement: wrong predictions
    can be balanced.

    Examples
    --------
    >>> combine_estimates(1.0, 0.8), round(combine_estimates(0.5, 0.3), 3), combine_estimates(0.3, 0.8)
    (1.0, 0.381, 0.3)
    """
    mixed = agreement * agreement + (1 - agreement) * transport
    return min(agreement, max(0.0, (mixed - AGREED_ERRORS) / (1 - AGREED_ERRORS)))


def compute_half_width(accuracy: float, n: int, gap: float) -> float:
    """Return the half width of the interval of an expected `accuracy` on `n` images from two estimates `gap` apart."""
    variance = max(accuracy * (1 - accuracy), LEAST_VARIANCE)
    return math.hypot(INTERVAL_FACTOR * variance, gap, NORMAL_QUANTILE * math.sqrt(variance / n))
