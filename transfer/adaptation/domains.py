"""Source and target: which rows are what, the target's labels masked from the start."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from transfer.adaptation.hidden_labels import HiddenLabels, hide_labels
from transfer.data.duplicates import Inspection, duplicates, merge_groups
from transfer.data.sampling import draw, few_labels
from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError, did_you_mean

Protocol = Literal["transductive", "inductive", "office"]

MANY, FEW, OF_TARGET = 20, 8, 3  # labels per class of the office protocol


@dataclass(frozen=True)
class Domains:
    """What a method sees of a source and a target; all rows are sorted indices into `table`, int64.

    Parameters
    ----------
    table : ImageTable
        Every row of the set. Objects are known of `train`, `val` and `labelled` alone, other targets of `train`
        and `val`, domains of all; classes that none of these rows has are not listed.
    sources : tuple of str
    target : str
    train : ndarray
        Source rows to learn from.
    val : ndarray
        Source rows held out to validate on.
    labelled : ndarray
        Target rows whose label may be used.
    unlabelled : ndarray
        Target rows to adapt to, disjoint from `labelled`.
    test : ndarray
        Target rows that the final evaluation measures; among `unlabelled` unless the protocol is inductive.
    notes : tuple of str
        What a reader should know of how the rows came about; none depends on a masked label.
    """

    table: ImageTable
    sources: tuple[str, ...]
    target: str
    train: np.ndarray
    val: np.ndarray
    labelled: np.ndarray
    unlabelled: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


def split_domains(
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
    """Say which rows of `table` are what, and put the target's labels away.

    No label of the target has a part in it, save the few that `target_labels` draws: without, deleting or
    shuffling all of them changes nothing of the pair.

    Parameters
    ----------
    table : ImageTable
    inspection : Inspection
        Of the same rows.
    sources : sequence of str
        The labelled domains.
    target : str
        The domain without labels.
    protocol : {"transductive", "inductive", "office"}
        ``transductive``: all source images, all target images without label, measured on these (the one of the
        published tables). ``inductive``: a part of the target is held out and measured on, its own test split
        where the set gives one, else drawn at random, for to stratify by object would be to use labels.
        ``office``: 20 labels per class of amazon (and of caltech; in other sets of the domain with the most
        images), 8 of any other source, 3 of the target unless `target_labels` says otherwise, measured on the
        rest of the target [1]_ [2]_.
    target_labels : int
        Labels per class of the target that may be used, drawn at random.
    val : float
        Fraction of the source's labels held out, in [0, 1), stratified by (domain, object).
    test : float
        Fraction of the target held out under ``inductive``, in (0, 1).
    seed : int

    Returns
    -------
    Domains
        For methods and for what chooses among them.
    HiddenLabels
        For the final evaluation.

    Raises
    ------
    TransferError
        Domains that are not there, no labels to learn from, or no target image left to adapt to or to test on.

    References
    ----------
    .. [1] K. Saenko et al., "Adapting Visual Category Models to New Domains", ECCV 2010, sec. 4.
    .. [2] B. Gong et al., "Geodesic Flow Kernel for Unsupervised Domain Adaptation", CVPR 2012, sec. 4.
    """
    sources = tuple(dict.fromkeys(sources))
    _check(table, sources, target, protocol, target_labels, val, test)
    mine, together = _rows(table, [target]), _together(table, inspection)
    notes: list[str] = []
    learnt = _source(table, sources, notes)
    if protocol == "office":
        target_labels = target_labels or OF_TARGET
        learnt = _few_of_each(learnt, table, sources, seed, notes)
    held_out = draw(learnt, table, together, val, np.random.default_rng(seed), notes, "val")
    adapt, tested = _hold_out(mine, table, together, test, seed, notes) if protocol == "inductive" else (mine, mine)
    labelled = few_labels(adapt, table, target_labels, seed)
    if target_labels and not len(labelled):
        raise TransferError(f"--target-labels {target_labels}: no image of {target} that may be learnt has a label")
    unlabelled, free = np.setdiff1d(adapt, labelled), np.setdiff1d(tested, labelled)
    tested = free[~np.isin(together[free], together[labelled])]
    _refuse_empty(unlabelled, tested, target, len(mine), len(labelled))

    seen, truth = hide_labels(table, target, learnt, labelled)
    if len(seen.objects) < 2:
        raise TransferError(f"--source: learning needs at least two objects, found only {seen.objects[0]!r}")
    if target_labels:
        notes += _short(labelled, seen, np.arange(len(seen.objects)), target_labels, target)
    left_out = len(free) - len(tested)
    if left_out:
        notes.append(f"{_images(left_out)} of {target} left out of test: copies of, or grouped with, labelled ones")
    notes += _notes(table, inspection, learnt, mine, target, protocol, val)
    rows = (np.setdiff1d(learnt, held_out), held_out, labelled, unlabelled, tested)
    return Domains(seen, sources, target, *rows, tuple(notes)), truth


def _check(
    table: ImageTable, sources: Sequence[str], target: str, protocol: str, target_labels: int, val: float, test: float
) -> None:
    """Refuse what cannot be meant, before anything is drawn."""
    has = f"{table.name} has {', '.join(table.domains)}"
    if len(table.domains) < 2:
        raise TransferError(f"{table.name} has one domain: adapting needs a source and a target, as in domain/class/…")
    for option, names in (("--source", sources), ("--target", [target])):
        if not any(names):
            raise TransferError(f"{option} is missing: {has}")
        for name in names:
            if name not in table.domains:
                raise TransferError(f"{option}: no domain {name!r}{did_you_mean(name, table.domains)}: {has}")
            if not len(_rows(table, [name])):
                raise TransferError(f"{option}: {table.name} has no image of {name}")
    if target in sources:
        raise TransferError(f"--target {target} is a source too: adapt to another domain; {has}")
    if protocol not in get_args(Protocol):
        known = get_args(Protocol)
        raise TransferError(f"no protocol {protocol!r}{did_you_mean(protocol, known)}: one of {', '.join(known)}")
    if target_labels < 0:
        raise TransferError(f"target_labels is {target_labels}: it must be 0 or more")
    if not 0 <= val < 1:
        raise TransferError(f"val is {val}: it must be a fraction from 0 to below 1")
    if not 0 < test < 1:
        raise TransferError(f"test is {test}: it must be a fraction above 0 and below 1")


def _refuse_empty(unlabelled: np.ndarray, tested: np.ndarray, target: str, images: int, labels: int) -> None:
    if not len(unlabelled):
        why = f"all are labelled ({labels})" if labels else "its own split tests on all of them"
        raise TransferError(f"{target} has {_images(images)}, none left to adapt to: {why}")
    if not len(tested):
        why = "the others are copies of, or grouped with, labelled ones" if labels else "none can be held out"
        raise TransferError(f"{target} has {_images(images)}, none left to test on: {why}")


def _rows(table: ImageTable, domains: Sequence[str]) -> np.ndarray:
    return np.flatnonzero(np.isin(table.domain, [table.domains.index(name) for name in domains]))


def _together(table: ImageTable, inspection: Inspection) -> np.ndarray:
    """Return a number for each row, int64, shape (N,), equal where files are copies or of one group."""
    own = [f"row {i}" if g == "" else f"group {g}" for i, g in enumerate(table.group.tolist())]
    return merge_groups([np.unique(own, return_inverse=True)[1], duplicates(inspection)])


def _source(table: ImageTable, sources: Sequence[str], notes: list[str]) -> np.ndarray:
    rows = _rows(table, sources)
    known = rows[table.object[rows] >= 0]
    if not len(known):
        raise TransferError(f"--source: no image of {', '.join(sources)} has a label")
    if len(known) < len(rows):
        notes.append(f"{_images(len(rows) - len(known))} of unknown object in the source left out")
    return known


def _few_of_each(
    rows: np.ndarray, table: ImageTable, sources: Sequence[str], seed: int, notes: list[str]
) -> np.ndarray:
    """Return the source `rows` that the office protocol draws."""
    largest = table.domains[np.bincount(table.domain[table.domain >= 0]).argmax()]
    large = [name for name in table.domains if name.lower().startswith(("amazon", "caltech"))] or [largest]
    drawn = []
    for name in sources:
        here = np.intersect1d(rows, _rows(table, [name]))
        count = MANY if name in large else FEW
        drawn.append(few_labels(here, table, count, seed))
        notes += _short(drawn[-1], table, np.unique(table.object[here]), count, name)
    return np.sort(np.concatenate(drawn))


def _hold_out(
    rows: np.ndarray, table: ImageTable, together: np.ndarray, test: float, seed: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the target `rows` to adapt to and those to test on; no label is looked at."""
    given = rows[table.split[rows] == "test"]
    if len(given):
        notes.append("the target's own test split is kept")
        adapt = rows[~np.isin(together[rows], together[given])]
        left_out = len(rows) - len(given) - len(adapt)
        if left_out:
            notes.append(f"{_images(left_out)} of the target left out: copies of, or grouped with, held-out ones")
        return adapt, given
    alike = Target(np.zeros(len(table), np.int64), classes=("",))
    blind = replace(table, targets=table.targets | {"object": alike})
    tested = draw(rows, blind, together, test, np.random.default_rng(seed), notes, "test")
    return np.setdiff1d(rows, tested), tested


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _short(rows: np.ndarray, table: ImageTable, objects: np.ndarray, wanted: int, domain: str) -> list[str]:
    counts = np.bincount(table.object[rows], minlength=len(table.objects))[objects]
    short = objects[counts < wanted]
    if not len(short):
        return []
    some = f"{len(short)} of {len(objects)} objects have fewer than {wanted} labels in {domain}"
    return [f"{some} (such as {table.objects[short[0]]}): all were taken"]


def _notes(
    table: ImageTable,
    inspection: Inspection,
    learnt: np.ndarray,
    mine: np.ndarray,
    target: str,
    protocol: Protocol,
    val: float,
) -> list[str]:
    notes = []
    used = learnt if protocol == "inductive" else np.union1d(learnt, mine)
    if (table.split[used] != "").any():
        notes.append(f"the set's own split is not used{' for the source' * (protocol == 'inductive')}")
    single = np.flatnonzero(np.bincount(table.object[learnt], minlength=len(table.objects)) == 1)
    if len(single) and val > 0:
        some = ", ".join(table.objects[i] for i in single[:5]) + (", …" if len(single) > 5 else "")
        notes.append(f"{len(single)} object{'s' * (len(single) > 1)} with a single image, never drawn for val: {some}")
    if len(mine) == 1:
        notes.append(f"{target} has a single image: adapting to one image means little")
    group = duplicates(inspection)
    copies = int(np.isin(group[mine], group[learnt]).sum())
    if copies:
        notes.append(f"{copies} of {_images(len(mine))} of {target} are copies of source images")
    lost = int((table.domain < 0).sum())
    if lost:
        notes.append(f"{_images(lost)} of unknown domain left out")
    return notes
