"""Calibration: whether predictions of 80 % confidence are correct in 80 % of cases."""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True, eq=False)
class Calibration:
    """A reliability diagram over bins of confidence, equally wide in [0, 1], which include their upper end."""

    counts: np.ndarray  # predictions in each bin, int64 (bins,)
    confidence: np.ndarray  # mean within each bin, float64 (bins,); NaN where a bin is empty
    accuracy: np.ndarray  # likewise
    error: float  # expected calibration error, in [0, 1]


def measure_calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Return the reliability diagram and the expected calibration error (Guo et al. 2017).

    The error is the mean over predictions of the distance between their bin's confidence and its accuracy.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        Probability of each predicted class, in [0, 1].
    correct : ndarray, shape (N,)
        Whether the predicted class is the true one.

    Examples
    --------
    >>> round(measure_calibration(np.array([0.9, 0.9, 0.7, 0.7]), np.array([1, 1, 1, 0])).error, 3)
    0.15
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct))
    with np.errstate(invalid="ignore"):
        mean_confidence, accuracy = (total / counts for total in sums)
    error = float(np.nansum(np.abs(mean_confidence - accuracy) * counts) / len(place)) if len(place) else 0.0
    return Calibration(counts, mean_confidence, accuracy, error)
