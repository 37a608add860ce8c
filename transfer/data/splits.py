"""Split a table into train, validation and test rows: stratified, seeded, without duplicates across splits."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from transfer.data.duplicates import NEAR_BITS, Inspection, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.label_sets.stratification import draw_by_labels
from transfer.data.sampling import draw_few_labels, draw_stratified
from transfer.data.table import ImageTable
from transfer.errors import TransferError, list_examples


@dataclass(frozen=True)
class Splits:
    """Disjoint, sorted rows of a table, int64. Validation and test rows all have a known object.

    `notes` are remarks on the split, such as dropped duplicates. `rest` are the rows of train whose labels must not be
    used, because ``shots`` did not draw them, and `added` those of a folder of unlabelled images. `groups` (N,) has a
    number for each row of the table: rows of one group, such as duplicates, are on one side.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()
    rest: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    groups: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    added: np.ndarray = field(default_factory=lambda: np.array([], np.int64))

    @property
    def extra(self) -> np.ndarray:
        """Rows of train that a run without ``--unlabelled`` does not have."""
        return np.union1d(self.rest, self.added)

    @property
    def plain_train(self) -> np.ndarray:
        """Rows of train that a run without ``--unlabelled`` has as well."""
        return np.setdiff1d(self.train, self.extra)


def split(  # the last five are options that a plain split does not need
    table: ImageTable,
    inspection: Inspection | None = None,
    *,
    test: float = 0.2,
    val: float = 0.2,
    shots: int | None = None,
    seed: int = 0,
    keep_near_duplicates_together: bool = False,
    keep_rest: bool = False,
    added: np.ndarray | None = None,
) -> Splits:
    """Split a table, stratified by (domain, object); of several labels an image by each of these as well.

    Byte-identical files and the rows of a ``group`` stay on one side, on request near-duplicates too. Each
    (domain, object) cell contributes its share of test images to within one, as far as groups and the last image of an
    object (which stays in train) allow. A split that comes with the set is respected; images of its train that are
    duplicates of held-out ones are dropped. Rows of unknown object go to train, except those of a given val or test.

    Parameters
    ----------
    inspection : Inspection, optional
        Inspection of the same rows; without it, duplicates are not detected.
    test, val : float
        Fraction of all labelled images, and of the rest, in [0, 1).
    shots : int, optional
        Labels per (domain, object), sampled after test is held out; validation is taken from these, and all other
        labelled images are dropped, or the `rest`.
    keep_near_duplicates_together : bool
        Assign near-duplicates to the same split.
    keep_rest : bool
        Keep the images that `shots` leaves over in train, as its ``rest``, unless they duplicate held-out ones.
    added : ndarray of bool, shape (N,), optional
        Rows of unknown object that do not change the split of the others: they are dropped where they duplicate an
        image that is held out, or one with a label. (Other rows of unknown object keep their duplicates from being held
        out.)

    Raises
    ------
    TransferError
        A fraction outside [0, 1), shots below 1, or `keep_near_duplicates_together` without an inspection.
    """
    _check(test, val, shots)
    if keep_near_duplicates_together and inspection is None:
        raise TransferError("keeping near-duplicates together needs an inspection of the images")
    near = None if inspection is None else group_near_duplicates(inspection)
    component = _components(table, inspection, near if keep_near_duplicates_together else None)

    notes: list[str] = []
    rng = np.random.default_rng(seed)
    known, held_out = table.object >= 0, np.isin(table.split, ["val", "test"])
    given_test, given_val = (np.flatnonzero((table.split == name) & known) for name in ("test", "val"))
    if (table.split != "").any():
        notes.append(
            "the split that comes with the set is used" + _missing_splits(len(given_test), len(given_val), test, val)
        )

    if unusable := int((held_out & ~known).sum()):
        notes.append(f"{_images(unusable)} of the given val and test without an object: not used")

    pool = np.flatnonzero(known & ~held_out)
    staying = ~known if added is None else ~known & ~added
    fixed = np.concatenate([np.flatnonzero(staying), given_test, given_val])  # duplicates of these cannot be sampled
    drawable = pool[~np.isin(component[pool], component[fixed])]
    several = any(target.values.ndim == 2 for target in table.targets.values())
    draw = draw_by_labels if several else draw_stratified
    test_rows = given_test if len(given_test) else draw(drawable, table, component, test, rng, notes, "test")
    # Only a given split can have duplicates on both sides: test has priority over val, val over train.
    free = ~np.isin(component, component[test_rows])
    copies = np.zeros(len(free), bool) if added is None else added & ~free
    left_out = int((~free & ~copies).sum()) - len(test_rows)
    pool, drawable, given_val = (rows[free[rows]] for rows in (pool, drawable, given_val))
    rest = np.array([], np.int64)
    if shots is not None:
        undrawn, pool = pool, draw_few_labels(pool, table, shots, seed)
        rest = np.setdiff1d(undrawn, pool) if keep_rest else rest
        drawable = np.intersect1d(pool, drawable)
        notes += _short_cells(pool, table, shots)
    if len(given_val):
        val_rows = given_val
    elif shots == 1 and val > 0:
        val_rows = np.array([], np.int64)
        notes.append("with one label per class and domain there is no validation image")
    else:
        val_rows = draw(drawable, table, component, val, rng, notes, "val")
    train_rows = np.union1d(np.setdiff1d(pool, val_rows), np.append(np.flatnonzero(~known & ~held_out & free), rest))
    shared = np.isin(component[train_rows], component[val_rows])
    if added is not None:
        same = component if inspection is None else group_duplicates(inspection)
        copies[train_rows] = added[train_rows] & (shared | np.isin(same[train_rows], same[pool]))
    left_out += int((shared & ~copies[train_rows]).sum())
    if left_out:
        notes.append(f"{_images(left_out)} of train and val dropped: duplicates of, or grouped with, held-out images")
    if copies.any():
        notes.append(f"{_images(int(copies.sum()))} without a label dropped: duplicates of images with one")
    train_rows = train_rows[~(shared | copies[train_rows])]
    more = np.array([], np.int64) if added is None else train_rows[added[train_rows]]
    rest = np.intersect1d(rest, train_rows)
    splits = Splits(train_rows, val_rows, test_rows, rest=rest, groups=component, added=more)
    return replace(splits, notes=(*notes, *_notes(splits, table, near, keep_rest)))


def _check(test: float, val: float, shots: int | None) -> None:
    for name, fraction in (("test", test), ("val", val)):
        if not 0 <= fraction < 1:
            raise TransferError(f"{name} is {fraction}: it must be a fraction from 0 to below 1")
    if shots is not None and shots < 1:
        raise TransferError(f"shots is {shots}: it must be 1 or more")


def _components(table: ImageTable, inspection: Inspection | None, near: np.ndarray | None) -> np.ndarray:
    """Return a component number for each row, int64, shape (N,); rows of one component stay together."""
    own = [f"row {i}" if g == "" else f"group {g}" for i, g in enumerate(table.group.tolist())]
    together = [np.unique(own, return_inverse=True)[1]]
    if inspection is not None:
        together.append(group_duplicates(inspection))
    if near is not None:
        together.append(near)
    return merge_groups(together)


def mask_labels(table: ImageTable, rows: np.ndarray, keep: tuple[str, ...] = ("domain",)) -> ImageTable:
    """Return the table with the targets of `rows` set to unknown, except those named in `keep`.

    By default the domain stays known, as it needs no labelling.
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


def _missing_splits(tests: int, vals: int, test: float, val: float) -> str:
    drawn = [name for name, n, f in (("test", tests, test), ("val", vals, val)) if f > 0 and not n]
    return f"; it has no {' and no '.join(drawn)}, sampled from its train" if drawn else ""


def _short_cells(rows: np.ndarray, table: ImageTable, shots: int) -> list[str]:
    cells = Counter(zip(table.domain[rows].tolist(), table.object[rows].tolist(), strict=True))
    short = [cell for cell, count in cells.items() if count < shots]
    if not short:
        return []
    domain, name = min(short)
    where = f"{table.domains[domain]}/{table.objects[name]}" if domain >= 0 else table.objects[name]
    return [f"{len(short)} of {len(cells)} cells have fewer than {shots} labels (such as {where}): all are used"]


def _notes(splits: Splits, table: ImageTable, near: np.ndarray | None, keep_rest: bool) -> list[str]:
    notes = []
    counts = np.bincount(table.object[table.object >= 0], minlength=len(table.objects))
    single = [name for name, count in zip(table.objects, counts, strict=True) if count == 1]
    if single and table.has_objects:
        objects = f"{len(single)} object{'s' * (len(single) > 1)}"
        notes.append(f"{objects} with a single image, which stays in train: {list_examples(single)}")
    unlabelled = int((table.object[splits.train] < 0).sum())
    if unlabelled:
        notes.append(f"{_images(unlabelled)} of unknown object in train, unlabelled")
    elif (
        keep_rest
        and not len(splits.rest)
        and all(target.known[splits.train].all() for name, target in table.targets.items() if name != "domain")
    ):
        notes.append("--unlabelled rest: every training image has a label, so it changes nothing")
    trained_on = np.concatenate([splits.train, splits.val])
    count = 0 if near is None else int(np.isin(near[splits.test], near[trained_on]).sum())
    if count:
        notes.append(
            f"{count} of {len(splits.test)} test images have a near-duplicate in train or val "
            f"(perceptual hashes within {NEAR_BITS} bits); --keep-near-duplicates-together avoids it"
        )
    return notes
