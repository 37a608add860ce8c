"""Assign images to cross-validation folds: classes spread evenly, duplicates always together."""

import numpy as np

from transfer.errors import TransferError


def assign_folds(labels: np.ndarray, groups: np.ndarray | None = None, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Return the fold of each row, int64, shape (N,): 0 up to `folds`, -1 where the label is unknown.

    Groups are assigned in random order, those of rare classes and larger ones first, each to the fold with the smallest
    share of its classes, or else the fewest rows. A class with two groups or more is therefore never held out
    completely, unless groups mix classes. (scikit-learn's StratifiedGroupKFold guarantees less for rare classes and
    takes seconds for 10,000 groups.)

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
    groups : ndarray of int64, shape (N,), optional
        Rows of the same group stay in one fold.
    folds : int
        Number of folds; fewer where there are fewer groups.

    Raises
    ------
    TransferError
        Fewer than two folds, or fewer than two groups with a label.

    Examples
    --------
    >>> assign_folds(np.array([0, 0, 0, 1, 1, 1, -1]), np.array([0, 0, 1, 2, 3, 3, 4]), folds=2)
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
        raise TransferError(
            f"{len(rows)} labelled images, {len(members)} without duplicates: cross-validation needs 2 or more; add "
            "images, or name a policy"
        )
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(members)[:-1])

    rarest = np.full(len(members), sizes.max())
    np.minimum.at(rarest, group, sizes[label])
    shuffled = np.random.default_rng(seed).permutation(len(members))
    order = shuffled[np.lexsort((-members[shuffled], rarest[shuffled]))]
    shares = np.zeros((min(folds, len(members)), len(sizes)))  # share of each class in each fold
    total = np.zeros(len(shares))
    assigned = np.empty(len(rows), np.int64)
    for part in (parts[number] for number in order):
        share = shares[:, label[part]].sum(1)
        to = np.lexsort((total, share))[0]
        assigned[part] = to
        np.add.at(shares[to], label[part], 1 / sizes[label[part]])
        total[to] += len(part)
    fold[rows] = assigned
    return fold
