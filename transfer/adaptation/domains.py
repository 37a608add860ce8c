"""Source and target domains: the role of each row, with the target's labels masked from the start."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from transfer.adaptation.hidden_labels import HiddenLabels, forget_no_classes, hide_labels
from transfer.data.duplicates import Inspection, group_duplicates, merge_groups
from transfer.data.label_sets.refusals import needs_objects
from transfer.data.sampling import draw_few_labels, draw_stratified
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError, did_you_mean, list_examples

UNLABELLED = "or --target-images FOLDER for images without labels"

Protocol = Literal["transductive", "inductive", "office"]

LARGE_SOURCE, SMALL_SOURCE, OFFICE_TARGET = 20, 8, 3  # labels per class of the office protocol (Saenko et al. 2010)


@dataclass(frozen=True)
class Domains:
    """The images of source and target as methods may use them; all rows are sorted indices into `table`, int64.

    `table` has every row of the data set. Only `train`, `val` and `labelled` have known objects, only `train` and `val`
    have other labels, all rows have domains. Classes without a known row are not listed.
    """

    table: ImageTable
    sources: tuple[str, ...]
    target: str
    train: np.ndarray  # source rows to train on
    val: np.ndarray  # source rows held out for validation
    labelled: np.ndarray  # target rows whose label may be used
    unlabelled: np.ndarray  # target rows to adapt to, disjoint from `labelled`
    test: np.ndarray  # target rows of the final evaluation; among `unlabelled` unless the protocol is inductive
    notes: tuple[str, ...] = ()  # on how the rows were selected; none depends on a masked label

    @property
    def seen(self) -> np.ndarray:
        """Rows whose images are trained on or adapted to."""
        return np.sort(np.concatenate([self.train, self.labelled, self.unlabelled]))


def split_domains(  # the options of ShiftConfig
    table: ImageTable,
    inspection: Inspection,
    *,
    sources: Sequence[str],
    target: str,
    protocol: Protocol = "transductive",
    target_labels: int = 0,
    val: float = 0.1,
    test: float = 0.5,
    seed: int = 0,
) -> tuple[Domains, HiddenLabels]:
    """Assign each row of `table` its role, and hide the target's labels until the final evaluation.

    No label of the target is used, except to draw `target_labels` per class. Without these, deleting or shuffling all
    target labels does not change the returned domains.

    Parameters
    ----------
    protocol : {"transductive", "inductive", "office"}
        ``transductive``: all source images, and all target images without labels, which are also the test images (as
        in published tables). ``inductive``: test images are held out from the target: the data set's test split if it
        has one, else a random sample, since stratifying by object would use labels. ``office``: 20 labels per class of
        amazon and caltech (in other data sets: of the largest domain), 8 of any other source, 3 of the target unless
        `target_labels` is given; the test images are the rest of the target [1]_ [2]_.
    target_labels : int
        Target labels per class that may be used, drawn at random.
    val : float
        Fraction of the labelled source rows held out, in [0, 1), stratified by (domain, object).
    test : float
        Fraction of the target held out under ``inductive``, in (0, 1).

    Raises
    ------
    TransferError
        A domain is missing, the source has no labels, or no target image is left to adapt to or to test on.

    References
    ----------
    .. [1] K. Saenko et al., "Adapting Visual Category Models to New Domains", ECCV 2010, sec. 4.
    .. [2] B. Gong et al., "Geodesic Flow Kernel for Unsupervised Domain Adaptation", CVPR 2012, sec. 4.
    """
    sources = tuple(dict.fromkeys(sources))
    _check(table, sources, target, protocol, target_labels, val, test)
    target_rows, groups = _rows(table, [target]), _group_rows(table, inspection)
    notes: list[str] = []
    source_rows = _labelled_source_rows(table, sources, notes)
    if protocol == "office":
        target_labels = target_labels or OFFICE_TARGET
    table, no_classes = forget_no_classes(table, source_rows, target_rows, few_labels=target_labels > 0)
    if protocol == "office":
        source_rows = _draw_office_rows(source_rows, table, sources, seed, notes)
    held_out = draw_stratified(source_rows, table, groups, val, np.random.default_rng(seed), notes, "val")
    adapt = test_rows = target_rows
    if protocol == "inductive":
        adapt, test_rows = _hold_out_test_rows(target_rows, table, groups, test, seed, notes)
    labelled = draw_few_labels(adapt, table, target_labels, seed)
    if target_labels and not len(labelled):
        raise TransferError(f"--target-labels {target_labels}: no training image of {target} has a label")
    unlabelled, free = np.setdiff1d(adapt, labelled), np.setdiff1d(test_rows, labelled)
    test_rows = free[~np.isin(groups[free], groups[labelled])]
    _refuse_empty(unlabelled, test_rows, target, len(target_rows), len(labelled))

    masked, hidden_labels = hide_labels(table, target, source_rows, labelled, no_classes)
    if len(masked.objects) < 2:
        raise TransferError(f"--source: training needs at least two objects, found only {masked.objects[0]!r}")
    if target_labels:
        notes += _note_few_labels(labelled, masked, np.arange(len(masked.objects)), target_labels, target)
    left_out = len(free) - len(test_rows)
    if left_out:
        notes.append(f"{_images(left_out)} of {target} left out of test: duplicates of, or grouped with, labelled ones")
    notes += _note_splits_and_duplicates(table, inspection, source_rows, target_rows, target, protocol, val)
    rows = (np.setdiff1d(source_rows, held_out), held_out, labelled, unlabelled, test_rows)
    return Domains(masked, sources, target, *rows, tuple(notes)), hidden_labels


def _check(
    table: ImageTable, sources: Sequence[str], target: str, protocol: str, target_labels: int, val: float, test: float
) -> None:
    """Raise TransferError if an option is invalid."""
    has = f"{table.name} has {', '.join(table.domains)}"
    if len(table.domains) < 2:
        raise TransferError(
            f"{table.name} has one domain: adapting needs a source and a target, as in domain/class/…, {UNLABELLED}"
        )
    for option, names in (("--source", sources), ("--target", [target])):
        if not any(names):
            raise TransferError(f"{option} is missing: {has}")
        for name in names:
            if name not in table.domains:
                hint = f"; {UNLABELLED}" if option == "--target" else ""
                raise TransferError(f"{option}: no domain {name!r}{did_you_mean(name, table.domains)}: {has}{hint}")
            if not len(_rows(table, [name])):
                raise TransferError(f"{option}: {table.name} has no image of {name}")
    if target in sources:
        raise TransferError(f"--target {target} is a source too: adapt to another domain; {has}")
    if protocol not in get_args(Protocol):
        known = get_args(Protocol)
        raise TransferError(f"no protocol {protocol!r}{did_you_mean(protocol, known)}: one of {', '.join(known)}")
    if not table.has_objects:
        raise needs_objects(table, "adaptation")
    if target_labels < 0:
        raise TransferError(f"target_labels is {target_labels}: it must be 0 or more")
    if not 0 <= val < 1:
        raise TransferError(f"val is {val}: it must be a fraction from 0 to below 1")
    if not 0 < test < 1:
        raise TransferError(f"test is {test}: it must be a fraction above 0 and below 1")


def _refuse_empty(unlabelled: np.ndarray, test_rows: np.ndarray, target: str, images: int, labels: int) -> None:
    if not len(unlabelled):
        why = f"all are labelled ({labels})" if labels else "all are in its test split"
        raise TransferError(f"{target} has {_images(images)}, none left to adapt to: {why}")
    if not len(test_rows):
        why = "the others are duplicates of, or grouped with, labelled ones" if labels else "none can be held out"
        raise TransferError(f"{target} has {_images(images)}, none left to test on: {why}")


def _rows(table: ImageTable, domains: Sequence[str]) -> np.ndarray:
    return np.flatnonzero(np.isin(table.domain, [table.domains.index(name) for name in domains]))


def _group_rows(table: ImageTable, inspection: Inspection) -> np.ndarray:
    """Return a number for each row, int64, shape (N,), equal for duplicate files and rows of one group."""
    names = [f"row {i}" if g == "" else f"group {g}" for i, g in enumerate(table.group.tolist())]
    return merge_groups([np.unique(names, return_inverse=True)[1], group_duplicates(inspection)])


def _labelled_source_rows(table: ImageTable, sources: Sequence[str], notes: list[str]) -> np.ndarray:
    rows = _rows(table, sources)
    known = rows[table.object[rows] >= 0]
    if not len(known):
        raise TransferError(f"--source: no image of {', '.join(sources)} has a label")
    if len(known) < len(rows):
        notes.append(f"{_images(len(rows) - len(known))} of unknown object in the source left out")
    return known


def _draw_office_rows(
    rows: np.ndarray, table: ImageTable, sources: Sequence[str], seed: int, notes: list[str]
) -> np.ndarray:
    """Return the source rows that the office protocol draws from `rows`."""
    largest = table.domains[np.bincount(table.domain[table.domain >= 0]).argmax()]
    large = [name for name in table.domains if name.lower().startswith(("amazon", "caltech"))] or [largest]
    drawn = []
    for name in sources:
        domain_rows = np.intersect1d(rows, _rows(table, [name]))
        count = LARGE_SOURCE if name in large else SMALL_SOURCE
        drawn.append(draw_few_labels(domain_rows, table, count, seed))
        notes += _note_few_labels(drawn[-1], table, np.unique(table.object[domain_rows]), count, name)
    return np.sort(np.concatenate(drawn))


def _hold_out_test_rows(
    rows: np.ndarray, table: ImageTable, groups: np.ndarray, test: float, seed: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the target rows to adapt to and the test rows; no label is used."""
    given = rows[table.split[rows] == "test"]
    if len(given):
        notes.append("the data set's test split of the target is used")
        adapt = rows[~np.isin(groups[rows], groups[given])]
        left_out = len(rows) - len(given) - len(adapt)
        if left_out:
            notes.append(f"{_images(left_out)} of the target left out: duplicates of, or grouped with, test images")
        return adapt, given
    one_object = Target(np.zeros(len(table), np.int64), classes=("",))
    without_labels = replace(table, targets=table.targets | {"object": one_object})
    test_rows = draw_stratified(rows, without_labels, groups, test, np.random.default_rng(seed), notes, "test")
    return np.setdiff1d(rows, test_rows), test_rows


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _note_few_labels(rows: np.ndarray, table: ImageTable, objects: np.ndarray, wanted: int, domain: str) -> list[str]:
    counts = np.bincount(table.object[rows], minlength=len(table.objects))[objects]
    short = objects[counts < wanted]
    if not len(short):
        return []
    count = f"{len(short)} of {len(objects)} objects have fewer than {wanted} labels in {domain}"
    return [f"{count} (such as {table.objects[short[0]]}): all are used"]


def _note_splits_and_duplicates(
    table: ImageTable,
    inspection: Inspection,
    source_rows: np.ndarray,
    target_rows: np.ndarray,
    target: str,
    protocol: Protocol,
    val: float,
) -> list[str]:
    notes = []
    used = source_rows if protocol == "inductive" else np.union1d(source_rows, target_rows)
    if (table.split[used] != "").any():
        notes.append(f"the data set's split is not used{' for the source' * (protocol == 'inductive')}")
    single = np.flatnonzero(np.bincount(table.object[source_rows], minlength=len(table.objects)) == 1)
    if len(single) and val > 0:
        listed = list_examples([table.objects[i] for i in single])
        objects = f"{len(single)} object{'s' * (len(single) > 1)}"
        notes.append(f"{objects} with a single image, never drawn for val: {listed}")
    if len(target_rows) == 1:
        notes.append(f"{target} has a single image: adapting to one image has little effect")
    group = group_duplicates(inspection)
    shared = int(np.isin(group[target_rows], group[source_rows]).sum())
    if shared:
        notes.append(f"{shared} of {_images(len(target_rows))} of {target} are duplicates of source images")
    unknown = int((table.domain < 0).sum())
    if unknown:
        notes.append(f"{_images(unknown)} of unknown domain left out")
    return notes
