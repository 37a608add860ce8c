"""Stratified sampling of rows by (domain, object) cell, without dividing groups."""

import math

import numpy as np

from transfer.data.table import ImageTable


def get_cells(rows: np.ndarray, table: ImageTable) -> np.ndarray:
    """Return the cell number of each row's (domain, object) pair, int64, same shape as `rows`."""
    return (table.domain[rows] + 1) * len(table.objects) + table.object[rows]


def draw_few_labels(rows: np.ndarray, table: ImageTable, per_class: int, seed: int) -> np.ndarray:
    """Draw up to `per_class` of the labelled `rows` from each (domain, object) cell; return them sorted."""
    rows = rows[table.object[rows] >= 0]
    shuffled = np.random.default_rng(seed).permutation(np.sort(rows))
    order = np.argsort(get_cells(shuffled, table), kind="stable")
    cell = get_cells(shuffled, table)[order]
    first = np.searchsorted(cell, cell)  # start of each row's cell
    return np.sort(shuffled[order][np.arange(len(cell)) - first < per_class])


def compute_quotas(counts: np.ndarray, fraction: float, owner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share out ``round(fraction * counts.sum())`` over cells by the largest remainder; `rng` breaks ties.

    Parameters
    ----------
    counts, owner : ndarray of int, shape (C,)
        Number of images per cell, and its object; an object never loses its last image.

    Returns
    -------
    ndarray of int, shape (C,)
        Each within one of ``fraction * counts``.

    Examples
    --------
    >>> compute_quotas(np.array([10, 10, 4]), 0.2, np.array([0, 1, 2]), np.random.default_rng(0))
    array([2, 2, 1])
    """
    share = fraction * counts
    quota = np.floor(share + 1e-9).astype(np.int64)  # tolerance: 0.3 * 10 must give 3
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
    """Draw a `fraction` of the labelled `rows`, stratified by cell; a component is drawn whole or not at all.

    Components are visited in random order. The first round takes those that fit into every cell, so that single
    images fill the quotas exactly; the second takes a larger one where that brings the cells nearer to their
    quotas.

    Parameters
    ----------
    component : ndarray of int64, shape (N,)
        Component of each row of the table.
    notes : list of str
        Gets a line if groups prevent the exact number, with the `name` of the sample.

    Returns
    -------
    ndarray of int64
        Sorted row indices.
    """
    if fraction == 0 or not len(rows):
        return np.array([], np.int64)
    _, cell, counts = np.unique(get_cells(rows, table), return_inverse=True, return_counts=True)
    owner = np.zeros(len(counts), np.int64)
    owner[cell] = table.object[rows]
    room = compute_quotas(counts, fraction, owner, rng)
    wanted = int(room.sum())
    to_spare = np.maximum(np.bincount(owner, counts) - 1, 0)  # images that may leave train, by object
    order = np.argsort(component[rows], kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(component[rows][order])) + 1)
    waiting = [members[i] for i in rng.permutation(len(members))]
    taken: list[np.ndarray] = []
    for may_overshoot in (False, True):
        left = []
        for member in waiting:
            if len(member) == 1:  # most are: the same in less time
                place = cell[member[0]]
                if room[place] >= 1 and to_spare[owner[place]] >= 1:
                    room[place] -= 1
                    to_spare[owner[place]] -= 1
                    taken.append(member)
                else:
                    left.append(member)
                continue
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
        notes.append(f"{name} has {len(drawn)} images instead of {wanted}: groups are not divided")
    return drawn
