"""What a policy's accuracy is expected to be: how far a measurement moves it, and what is open to layers that learn."""

from math import sqrt

import numpy as np

HALF = 300  # images, with which layers that learn have half of it open to them
SURPRISE = 4.0  # standard deviations of a measurement that chance does not explain


def mendable(images: int, error: float) -> float:
    """Return what of a probe's `error` is open to layers that learn from so many images, half of it with ``HALF``.

    The more a probe errs, the more of its errors nothing tells right: the share goes with its accuracy, squared.

    Examples
    --------
    >>> mendable(HALF, 0.0), mendable(HALF, 0.5), round(mendable(10**9, 0.1), 3)
    (0.0, 0.0625, 0.081)
    """
    return images / (images + HALF) * (1 - error) ** 2 * error


def gained(right: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Return how much more often `right` holds than `before` on the same images, and its standard deviation.

    One image on which they differ is added: where two answers never differ, that does not prove them equally good.

    Examples
    --------
    >>> gained(np.array([True, True, True, False]), np.array([True, False, True, False]))
    (0.25, 0.3535533905932738)
    """
    apart = int((right != before).sum())
    return float(right.mean() - before.mean()), sqrt(apart + 1) / len(right)


def posterior(expected: float, expected_sd: float, measured: float, measured_sd: float) -> tuple[float, float]:
    """Return mean and standard deviation of what was expected once it was measured: both normal, by their precisions.

    A measurement so far off that chance does not explain it speaks against the expectation, whose deviation then
    counts as what is left of the distance beyond four of the measurement's.

    Examples
    --------
    >>> posterior(0.0, 1.0, 1.0, 1.0)[0], posterior(0.0, 1e-6, 1.0, 1.0)[0] < 1e-6
    (0.5, True)
    >>> round(posterior(0.0, 0.1, 1.0, 0.01)[0], 3)
    1.0
    """
    expected_sd = max(expected_sd, abs(measured - expected) - SURPRISE * measured_sd)
    weight = expected_sd**2 / (expected_sd**2 + measured_sd**2)
    return expected + weight * (measured - expected), sqrt(weight) * measured_sd
