"""Choose what the labels so far leave uncertain: smallest margin, highest entropy; and a random sample to compare."""

import numpy as np

from transfer.curation.picking.pool import Choice, Pool


def choose_smallest_margins(pool: Pool, n: int) -> list[Choice]:
    """Return the `n` candidates whose two likeliest classes are nearest in probability (Scheffer et al. 2001)."""
    rows = np.flatnonzero(pool.candidates)
    order = rows[np.argsort(pool.margins[rows], kind="stable")][:n]
    return [Choice(int(row), float(1 - pool.margins[row]), describe_doubt(pool, row)) for row in order]


def choose_highest_entropies(pool: Pool, n: int) -> list[Choice]:
    """Return the `n` candidates whose class probabilities have the highest entropy, in nats (Shannon 1948)."""
    assert pool.probabilities is not None
    rows = np.flatnonzero(pool.candidates)
    p = pool.probabilities[rows]
    entropy = -(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(1)
    order = np.argsort(-entropy, kind="stable")[:n]
    return [Choice(int(rows[i]), float(entropy[i]), describe_doubt(pool, rows[i])) for i in order]


def choose_randomly(pool: Pool, n: int) -> list[Choice]:
    """Return a random sample of `n` candidates."""
    rows = np.random.default_rng(pool.seed).permutation(np.flatnonzero(pool.candidates))[:n]
    return [Choice(int(row), 0.0, "random") for row in rows]


def describe_doubt(pool: Pool, row: int) -> str:
    """Return in words between which classes a row lies."""
    first, second = pool.name_likeliest(row)
    return f"{first} or {second}"
