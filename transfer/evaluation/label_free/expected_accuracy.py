"""The expected accuracy of a model on images without labels, with an interval, and an alarm where it is lower."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.evaluation.label_free.second_opinion import SecondOpinion
from transfer.evaluation.label_free.shift_test import compare_outputs
from transfer.evaluation.label_free.transport import estimate_by_transport

METHOD = "agreement of three classifiers, and confidence optimal transport"
LEVEL = 0.9  # of intervals
NORMAL_QUANTILE = 1.645  # at that level
MIN_IMAGES = 10  # of fewer, mean and spread of the features say nothing
# The following were set on transformed photographs of flowers12 and neu_cls: `../README.md` says how.
AGREED_ERRORS = 0.03  # share of wrong predictions that both estimates count as correct
INTERVAL_FACTOR = 0.55  # half width of 90 % intervals for many images, over p (1 - p)
LEAST_VARIANCE = 0.02  # of p (1 - p): an expected accuracy of 1 is not certain
ALARM_P_VALUE = 0.01


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
    agreement, transport : float
        The two estimates that it combines.
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
    p_value: float

    @property
    def alarm(self) -> bool:
        """Whether the images differ from the training images, and the accuracy is lower beyond chance."""
        p = self.held_out
        chance = NORMAL_QUANTILE * math.sqrt(max(p * (1 - p), LEAST_VARIANCE) / self.n)
        return self.p_value < ALARM_P_VALUE and self.accuracy < p - chance

    def record(self) -> dict[str, Any]:
        """Return the entry of a result."""
        rounded = {name: round(getattr(self, name), 6) for name in ("agreement", "transport")}
        return {
            "accuracy": round(self.accuracy, 6),
            "interval": [round(self.low, 6), round(self.high, 6)],
            "level": LEVEL,
            "n": self.n,
            "held_out_accuracy": round(self.held_out, 6),
            "method": METHOD,
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

    def expect(self, probabilities: np.ndarray, features: np.ndarray) -> ExpectedAccuracy | None:
        """Return the expected accuracy on images with these `probabilities` (N, classes) and `features` (N, F).

        None with fewer than `MIN_IMAGES`, or if a number is not finite.
        """
        if len(probabilities) < MIN_IMAGES or not (np.isfinite(probabilities).all() and np.isfinite(features).all()):
            return None
        probabilities = probabilities.astype(float)
        shares = np.bincount(self.labels, minlength=probabilities.shape[1]) / len(self.labels)
        agreement = self.opinion.measure_agreement(features, probabilities.argmax(1))
        transport = estimate_by_transport(probabilities, shares)
        accuracy = combine_estimates(agreement, transport)
        half = compute_half_width(accuracy, len(probabilities))
        return ExpectedAccuracy(
            accuracy,
            max(0.0, accuracy - half),
            min(1.0, accuracy + half),
            len(probabilities),
            self.accuracy,
            agreement,
            transport,
            # Both as kept: in float16 the smallest probabilities are 0.
            compare_outputs(*(each.astype(np.float16).astype(float) for each in (self.probabilities, probabilities))),
        )


def combine_estimates(agreement: float, transport: float) -> float:
    """Return the expected accuracy: the agreement where it is high, the transport estimate where it is low.

    Examples
    --------
    >>> combine_estimates(1.0, 0.8), round(combine_estimates(0.5, 0.3), 3)
    (1.0, 0.381)
    """
    mixed = agreement * agreement + (1 - agreement) * transport
    return max(0.0, (mixed - AGREED_ERRORS) / (1 - AGREED_ERRORS))


def compute_half_width(accuracy: float, n: int) -> float:
    """Return the half width of the interval of an expected `accuracy` on `n` images: of the estimate and of chance."""
    variance = max(accuracy * (1 - accuracy), LEAST_VARIANCE)
    return math.hypot(INTERVAL_FACTOR * variance, NORMAL_QUANTILE * math.sqrt(variance / n))
