"""Folds for cross-validation: classes spread evenly, copies of a picture never apart."""

import numpy as np

from transfer.errors import TransferError


def stratified_folds(
    labels: np.ndarray, groups: np.ndarray | None = None, *, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Return the fold of each row, int64, shape (N,): 0 up to `folds`, -1 where the label is unknown.

    Groups are dealt in random order, those of rare classes and the larger ones first, each to the fold that has the
    least share of its classes, or else the fewest rows. So a class of images in two groups or more is never held out
    whole, as long as groups do not mix classes. (scikit-learn's StratifiedGroupKFold, which is after the same,
    promises less to rare classes and takes seconds for 10,000 groups.)

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
    groups : ndarray of int64, shape (N,), optional
        Rows of equal number stay in one fold.
    folds : int
        Fewer are made where there are fewer groups.
    seed : int

    Raises
    ------
    TransferError
        Fewer than two folds, or fewer than two groups with a label.

    Examples
    --------
    >>> stratified_folds(np.array([0, 0, 0, 1, 1, 1, -1]), np.array([0, 0, 1, 2, 3, 3, 4]), folds=2)
    array([ 0,  0,  1,  0,  1,  1, -1])
    """
    if folds < 2:
        raise TransferError(f"folds is {folds}: cross-validation needs 2 or more")
    fold = np.full(len(labels), -1, np.int64)
    rows = np.flatnonzero(labels >= 0)
    _, label, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    names = rows if groups is None else groups[rows]
    _, group, members = np.unique(names, return_inverse=True, return_counts=True)
    if len(members) < 2:
        raise TransferError(f"{len(members)} labelled images that are not copies: cross-validation needs 2 or more")
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(members)[:-1])

    rarest = np.full(len(members), sizes.max())
    np.minimum.at(rarest, group, sizes[label])
    shuffled = np.random.default_rng(seed).permutation(len(members))
    order = shuffled[np.lexsort((-members[shuffled], rarest[shuffled]))]
    held = np.zeros((min(folds, len(members)), len(sizes)))  # share of each class in each fold
    total = np.zeros(len(held))
    dealt = np.empty(len(rows), np.int64)
    for part in (parts[number] for number in order):
        share = held[:, label[part]].sum(1)
        to = np.lexsort((total, share))[0]
        dealt[part] = to
        np.add.at(held[to], label[part], 1 / sizes[label[part]])
        total[to] += len(part)
    fold[rows] = dealt
    return fold
