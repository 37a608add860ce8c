"""Risk by coverage: the error rate on the images that are answered, the most confident ones first."""

import numpy as np

CURVE_POINTS = 20


def measure_risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> dict[str, object]:
    """Return the ``curve``, as [coverage, error rate, least confidence] of the most confident images, and its ``area``.

    The area is the mean error rate over all numbers of answered images (Geifman et al. 2019); smaller is better.

    Parameters
    ----------
    confidence : ndarray, shape (N,)
        Probability of each predicted class.
    correct : ndarray of bool, shape (N,)

    Examples
    --------
    >>> found = measure_risk_coverage(np.array([0.9, 0.8, 0.6, 0.5]), np.array([True, True, False, True]))
    >>> found["curve"][1:3]
    [[0.5, 0.0, 0.8], [0.75, 0.333333, 0.6]]
    """
    if not len(confidence):
        return {}
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    risk = np.cumsum(~correct[order].astype(bool)) / answered
    places = np.unique(-(-len(order) * np.arange(1, CURVE_POINTS + 1) // CURVE_POINTS))  # rounded up
    curve = [
        [round(float(value), 6) for value in (n / len(order), risk[n - 1], confidence[order[n - 1]])]
        for n in places.tolist()
    ]
    return {"curve": curve, "area": round(float(risk.mean()), 6)}
