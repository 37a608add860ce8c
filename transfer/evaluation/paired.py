"""A paired test of two runs on the same images: is the difference in accuracy significant?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.heads.multilabel.metrics import BOOTSTRAP_SAMPLES, mean_average_precision


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


def compare_precision(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], images: Sequence[np.ndarray] | None = None
) -> dict[str, Any]:
    """Return the difference in mean average precision of two models, the mean over seeds, and its 95 % interval.

    The interval is a percentile bootstrap over images, the same for both models. There is no p-value.

    Parameters
    ----------
    parts : sequence of (ndarray, ndarray, ndarray), each of shape (N, labels)
        Of each seed: which labels each image shows (1, 0, or -1 where that is unknown; each image has a known one), and
        the scores of the two models.
    images : sequence of ndarray, each of shape (N,), optional
        Of each seed, which image each row is; default: all different.

    Returns
    -------
    dict
        ``difference``, of the first model minus the second, ``interval``, and ``images``, their number.

    Examples
    --------
    >>> true, scores = np.array([[1], [0], [1]]), np.array([[0.9], [0.2], [0.8]])
    >>> compare_precision([(true, scores, scores)])
    {'difference': 0.0, 'interval': [0.0, 0.0], 'images': 3}
    """
    if images is None:
        sizes = [len(true) for true, _, _ in parts]
        images = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    names, places = np.unique(np.concatenate(images), return_inverse=True)
    rows = np.split(places, np.cumsum([len(each) for each in images])[:-1])
    counts = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=BOOTSTRAP_SAMPLES
    )
    counts = np.concatenate([np.ones((1, len(names)), np.int64), counts])  # the first sample is all images, once
    of_seeds = [
        mean_average_precision(true, a, counts[:, row]) - mean_average_precision(true, b, counts[:, row])
        for (true, a, b), row in zip(parts, rows, strict=True)
    ]
    found = np.mean(of_seeds, axis=0)
    interval = np.percentile(found[1:], [2.5, 97.5]).round(6).tolist()
    return {"difference": float(found[0]), "interval": interval, "images": len(names)}
