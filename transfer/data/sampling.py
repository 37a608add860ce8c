"""Stratified draws of rows: so many of each (domain, object) cell, groups kept whole."""

import math

import numpy as np

from transfer.data.table import ImageTable


def cells(rows: np.ndarray, table: ImageTable) -> np.ndarray:
    """Return the number of each row's (domain, object) cell, int64, same shape as `rows`."""
    return (table.domain[rows] + 1) * len(table.objects) + table.object[rows]


def draw_few_labels(rows: np.ndarray, table: ImageTable, per_class: int, seed: int) -> np.ndarray:
    """Draw up to `per_class` of the labelled `rows` from each (domain, object) cell.

    Returns
    -------
    ndarray of int64
        Sorted row indices; a cell with fewer rows gives all it has.
    """
    rows = rows[table.object[rows] >= 0]
    shuffled = np.random.default_rng(seed).permutation(np.sort(rows))
    order = np.argsort(cells(shuffled, table), kind="stable")
    cell = cells(shuffled, table)[order]
    first = np.searchsorted(cell, cell)  # where each one's cell begins
    return np.sort(shuffled[order][np.arange(len(cell)) - first < per_class])


def quotas(counts: np.ndarray, fraction: float, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share out ``round(fraction * counts.sum())`` over cells by the largest remainder.

    Parameters
    ----------
    counts : ndarray of int, shape (C,)
        Images of each cell.
    fraction : float
        In [0, 1).
    owner : ndarray of int, shape (C,)
        Each cell's object; no object gives its last image.
    rng : numpy.random.Generator
        Breaks ties.

    Returns
    -------
    ndarray of int, shape (C,)
        Each within one of ``fraction * counts``.

    Examples
    --------
    >>> quotas(np.array([10, 10, 4]), 0.2, np.array([0, 1, 2]), np.random.default_rng(0))
    array([2, 2, 1])
    """
    share = fraction * counts
    quota = np.floor(share + 1e-9).astype(np.int64)  # 0.3 * 10 is 3, whatever the floats say
    wanted = math.floor(fraction * counts.sum() + 0.5)
    to_spare = np.bincount(owner, counts) - np.bincount(owner, quota) - 1
    remainder = share - quota
    for cell in np.lexsort((rng.random(len(counts)), -np.round(remainder, 9))):
        if quota.sum() >= wanted:
            break
        if remainder[cell] > 1e-9 and to_spare[owner[cell]] >= 1:
            quota[cell] += 1
            to_spare[owner[cell]] -= 1
    return quota


def draw_stratified(
    rows: np.ndarray,
    table: ImageTable,
    component: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
    notes: list[str],
    name: str,
) -> np.ndarray:
    """Draw a `fraction` of `rows`, stratified by cell, each component drawn whole or not at all.

    Components come in random order. The first round takes each that every cell has room for, so that single
    images fill the quotas exactly; the second takes a larger one where that brings the cells nearer to their
    quotas.

    Parameters
    ----------
    rows : ndarray of int64
        Labelled rows to draw from.
    table : ImageTable
    component : ndarray of int64, shape (N,)
        Of every row of the table.
    fraction : float
        Of the rows, in [0, 1).
    rng : numpy.random.Generator
    notes : list of str
        A line is added where groups keep the number from what it should be.
    name : str
        What is drawn, for that line.

    Returns
    -------
    ndarray of int64
        Sorted row indices.
    """
    if fraction == 0 or not len(rows):
        return np.array([], np.int64)
    _, cell, counts = np.unique(cells(rows, table), return_inverse=True, return_counts=True)
    owner = np.zeros(len(counts), np.int64)
    owner[cell] = table.object[rows]
    room = quotas(counts, fraction, owner, rng)
    wanted = int(room.sum())
    to_spare = np.maximum(np.bincount(owner, counts) - 1, 0)  # of each object, what may leave train
    order = np.argsort(component[rows], kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(component[rows][order])) + 1)
    waiting = [members[i] for i in rng.permutation(len(members))]
    taken: list[np.ndarray] = []
    for may_overshoot in (False, True):
        left = []
        for member in waiting:
            touched, size = np.unique(cell[member], return_counts=True)
            after = room[touched] - size
            fits = (after >= 0).all() or (may_overshoot and abs(after).sum() < abs(room[touched]).sum())
            leaving = np.bincount(owner[cell[member]], minlength=len(to_spare))
            if fits and (leaving <= to_spare).all():
                room[touched] = after
                to_spare -= leaving
                taken.append(member)
            else:
                left.append(member)
        waiting = left
    drawn = np.sort(rows[np.concatenate(taken)]) if taken else np.array([], np.int64)
    if len(drawn) != wanted:
        notes.append(f"{name} has {len(drawn)} images instead of {wanted}: groups are kept whole")
    return drawn
