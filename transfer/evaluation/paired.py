"""A paired test of two runs on the same images: is the difference in accuracy significant?"""

from typing import Any

import numpy as np


def paired_test(
    a: np.ndarray, b: np.ndarray, images: np.ndarray | None = None, *, draws: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Return the difference in accuracy of `a` and `b`, its 95 % interval and a p-value.

    Differences are summed per image first, so that an image tested under several seeds counts as one sample. The
    interval is a percentile bootstrap over images; the p-value a two-sided sign-flip permutation test (Good 2005),
    which for one row per image is McNemar's exact test by simulation.

    Parameters
    ----------
    a, b : ndarray, shape (N,)
        Whether each run's prediction is correct for each row (0 or 1).
    images : ndarray, shape (N,), optional
        Which image each row is; default: all different.
    draws : int
        Bootstrap resamples, and permutations.

    Returns
    -------
    dict
        ``difference``, ``interval``, ``p``, and ``images``, their number.

    Examples
    --------
    >>> correct = np.array([1, 1, 1, 1, 0, 1, 1, 1, 0, 1])
    >>> paired_test(correct, correct)["difference"], paired_test(correct, correct)["p"]
    (0.0, 1.0)
    """
    if images is None:
        images = np.arange(len(a))
    _, image = np.unique(images, return_inverse=True)
    delta = np.bincount(image, weights=a.astype(float) - b.astype(float))
    rows = np.bincount(image).astype(float)
    rng = np.random.default_rng(seed)
    # Images that count alike are drawn together: how many of each kind, not which. In order of appearance, so that
    # a and b in turn give the same draws.
    kinds, first, alike = np.unique(np.stack([delta, rows]), axis=1, return_index=True, return_counts=True)
    order = np.argsort(first)
    kinds, alike = kinds[:, order], alike[order]
    picked = rng.multinomial(len(delta), alike / len(delta), size=draws).astype(float)
    boot = (picked @ kinds[0]) / (picked @ kinds[1])
    flips = np.empty(draws)
    nonzero = delta[delta != 0]
    for start in range(0, draws, 500):  # in slices, to bound memory
        size = min(500, draws - start)
        flips[start : start + size] = rng.choice([-1.0, 1.0], size=(size, len(nonzero))) @ nonzero
    extreme = int((np.abs(flips) >= abs(delta.sum()) - 1e-9).sum()) if len(nonzero) else draws
    return {
        "difference": float(delta.sum() / rows.sum()),
        "interval": np.percentile(boot, [2.5, 97.5]).round(6).tolist(),
        "p": (extreme + 1) / (draws + 1),
        "images": len(delta),
    }
