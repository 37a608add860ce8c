"""Whether confidence is to be believed: of answers that are 80 % sure, are 80 % right?"""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """A reliability diagram and its summary.

    Parameters
    ----------
    counts : ndarray of int64, shape (bins,)
        Answers in each bin of confidence; the bins share out [0, 1] evenly, each with its upper end.
    confidence, accuracy : ndarray of float64, shape (bins,)
        Their means; NaN where a bin is empty.
    error : float
        Expected calibration error, in [0, 1].
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def measure_calibration(confidence: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Return how far `confidence` is from accuracy (Guo et al. 2017).

    The expected calibration error is the mean over answers of the distance between their bin's confidence and its
    accuracy.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        Probability of each answer, in [0, 1].
    right : ndarray, shape (N,)
        Whether it was right.

    Examples
    --------
    >>> round(measure_calibration(np.array([0.9, 0.9, 0.7, 0.7]), np.array([1, 1, 1, 0])).error, 3)
    0.15
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    with np.errstate(invalid="ignore"):
        sure, true = (total / counts for total in sums)
    error = float(np.nansum(np.abs(sure - true) * counts) / len(place)) if len(place) else 0.0
    return Calibration(counts, sure, true, error)
