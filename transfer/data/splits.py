"""Train, validation and test rows: stratified, seeded, and no image on both sides of a split."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from transfer.data.duplicates import NEAR_BITS, Inspection, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.sampling import draw_few_labels, draw_stratified
from transfer.data.table import ImageTable
from transfer.errors import TransferError

__all__ = ["Splits", "draw_few_labels", "mask_labels", "split"]


@dataclass(frozen=True)
class Splits:
    """Disjoint rows of a table.

    Parameters
    ----------
    train, val, test : ndarray of int64
        Sorted row indices. Validation and test rows all have a known object.
    notes : tuple of str
        What a reader should know of how the split came about.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


def split(
    table: ImageTable,
    inspection: Inspection | None = None,
    *,
    test: float = 0.2,
    val: float = 0.2,
    shots: int | None = None,
    seed: int = 0,
    keep_near_duplicates_together: bool = False,
) -> Splits:
    """Split a table, stratified by (domain, object).

    Byte-identical files and the rows of a ``group`` stay on one side, on request near-duplicates too. Each
    (domain, object) cell gives its share of test images to within one, and their number is as near the
    fraction of all as can be, as far as groups and the last image of an object (which stays in train) allow.
    A split that comes with the set is kept; images of its train that are copies of held-out ones are then in
    no split. Rows of unknown object always go to train.

    Parameters
    ----------
    table : ImageTable
    inspection : Inspection, optional
        Of the same rows; without it, copies are not looked for.
    test : float
        Fraction of all labelled images, in [0, 1).
    val : float
        Fraction of the rest, in [0, 1).
    shots : int, optional
        Labels per (domain, object), drawn once test is held out; validation is taken out of these, and the
        other labelled images are in no split.
    seed : int
    keep_near_duplicates_together : bool
        Keep near-duplicates on one side.

    Raises
    ------
    TransferError
        A fraction outside [0, 1), shots below 1, or near-duplicates asked for without an inspection.
    """
    _check(test, val, shots)
    if keep_near_duplicates_together and inspection is None:
        raise TransferError("keeping near-duplicates together needs an inspection of the images")
    near = None if inspection is None else group_near_duplicates(inspection)
    component = _components(table, inspection, near if keep_near_duplicates_together else None)

    notes: list[str] = []
    rng = np.random.default_rng(seed)
    known = table.object >= 0
    given_test, given_val = (np.flatnonzero((table.split == name) & known) for name in ("test", "val"))
    if (table.split != "").any():
        notes.append("the set's own split is kept" + _drawn_besides(len(given_test), len(given_val), test, val))

    pool = np.flatnonzero(known & ~np.isin(table.split, ["val", "test"]))
    fixed = np.concatenate([np.flatnonzero(~known), given_test, given_val])  # whose copies cannot be drawn
    drawable = pool[~np.isin(component[pool], component[fixed])]
    test_rows = given_test if len(given_test) else draw_stratified(drawable, table, component, test, rng, notes, "test")
    # Only a split that came with the set can have copies on both sides: the later side keeps its images.
    free = ~np.isin(component, component[test_rows])
    left_out = int((~free).sum()) - len(test_rows)
    pool, drawable, given_val = (rows[free[rows]] for rows in (pool, drawable, given_val))
    if shots is not None:
        pool = draw_few_labels(pool, table, shots, seed)
        drawable = np.intersect1d(pool, drawable)
        notes += _short_cells(pool, table, shots)
    if len(given_val):
        val_rows = given_val
    elif shots == 1 and val > 0:
        val_rows = np.array([], np.int64)
        notes.append("one label a class and domain leaves none for validation")
    else:
        val_rows = draw_stratified(drawable, table, component, val, rng, notes, "val")
    train_rows = np.union1d(np.setdiff1d(pool, val_rows), np.flatnonzero(~known & free))
    shared = np.isin(component[train_rows], component[val_rows])
    left_out += int(shared.sum())
    if left_out:
        notes.append(f"{_images(left_out)} of train and val left out: copies of, or grouped with, held-out ones")
    splits = Splits(train_rows[~shared], val_rows, test_rows)
    return replace(splits, notes=(*notes, *_notes(splits, table, near)))


def _check(test: float, val: float, shots: int | None) -> None:
    for name, fraction in (("test", test), ("val", val)):
        if not 0 <= fraction < 1:
            raise TransferError(f"{name} is {fraction}: it must be a fraction from 0 to below 1")
    if shots is not None and shots < 1:
        raise TransferError(f"shots is {shots}: it must be 1 or more")


def _components(table: ImageTable, inspection: Inspection | None, near: np.ndarray | None) -> np.ndarray:
    """Return what must stay together: a number for each row, int64, shape (N,)."""
    own = [f"row {i}" if g == "" else f"group {g}" for i, g in enumerate(table.group.tolist())]
    together = [np.unique(own, return_inverse=True)[1]]
    if inspection is not None:
        together.append(group_duplicates(inspection))
    if near is not None:
        together.append(near)
    return merge_groups(together)


def mask_labels(table: ImageTable, rows: np.ndarray, keep: tuple[str, ...] = ("domain",)) -> ImageTable:
    """Return the table with the targets of `rows` unknown, save those named in `keep`.

    By default the domain stays: where an image comes from is known without anyone labelling it.
    """
    targets = {}
    for name, target in table.targets.items():
        values = target.values.copy()
        if name not in keep:
            values[rows] = np.nan if values.dtype.kind == "f" else -1
        targets[name] = replace(target, values=values)
    return replace(table, targets=targets)


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _drawn_besides(tests: int, vals: int, test: float, val: float) -> str:
    drawn = [name for name, n, f in (("test", tests, test), ("val", vals, val)) if f > 0 and not n]
    return f"; it has no {' and no '.join(drawn)}, drawn from its train" if drawn else ""


def _short_cells(rows: np.ndarray, table: ImageTable, shots: int) -> list[str]:
    cells = Counter(zip(table.domain[rows].tolist(), table.object[rows].tolist(), strict=True))
    short = [cell for cell, count in cells.items() if count < shots]
    if not short:
        return []
    domain, name = min(short)
    where = f"{table.domains[domain]}/{table.objects[name]}" if domain >= 0 else table.objects[name]
    return [f"{len(short)} of {len(cells)} cells have fewer than {shots} labels (such as {where}): all were taken"]


def _notes(splits: Splits, table: ImageTable, near: np.ndarray | None) -> list[str]:
    notes = []
    counts = np.bincount(table.object[table.object >= 0], minlength=len(table.objects))
    single = [name for name, count in zip(table.objects, counts, strict=True) if count == 1]
    if single:
        some = ", ".join(single[:5]) + (", …" if len(single) > 5 else "")
        notes.append(f"{len(single)} object{'s' * (len(single) > 1)} with a single image, never drawn: {some}")
    unlabelled = int((table.object[splits.train] < 0).sum())
    if unlabelled:
        notes.append(f"{_images(unlabelled)} of unknown object in train, unlabelled")
    learnt = np.concatenate([splits.train, splits.val])
    twins = 0 if near is None else int(np.isin(near[splits.test], near[learnt]).sum())
    if twins:
        notes.append(
            f"{twins} of {len(splits.test)} test images have a near-duplicate in train or val "
            f"(perceptual hashes within {NEAR_BITS} bits); --keep-near-duplicates-together avoids it"
        )
    return notes
