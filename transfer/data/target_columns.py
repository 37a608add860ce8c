"""Text columns -> targets: class names, two classes, or numbers. Registered head kinds add readers of their own."""

import math
import re
from collections.abc import Callable, Collection

import numpy as np

from transfer.data.class_names import find_alike
from transfer.data.label_sets.cells import MULTILABEL, SEPARATORS_OF_LABELS, read_label_sets
from transfer.data.table import Target, make_softmax_target, sort_classes
from transfer.errors import MissingColumn, TransferError, UnknownName, did_you_mean
from transfer.runtime.plugins import load_entry_points

BINARY_PAIRS = (("0", "1"), ("no", "yes"), ("false", "true"))

ColumnReader = Callable[[str, list[str], Callable[[int], str]], Target]
"""Takes the column's name, its stripped cells ("" where unknown) and a function from a row to its place, for errors."""


def read_target(name: str, kind: str | None, cells: list[str], place: Callable[[int], str]) -> Target:
    """Return the target of a column for a `kind` of head; see :data:`ColumnReader` for the other parameters.

    Without a kind, a column of 0/1, yes/no or true/false is binary, one of other numbers regression, one with a ``|``
    in a cell multilabel, any other softmax.

    Raises
    ------
    TransferError
        An empty column, an unknown kind, or a cell that the kind cannot read.
    """
    known = {c.casefold() for c in cells if c}
    if not known:
        raise MissingColumn(f"the column {name!r} has no value at all", [name])
    if kind is None:
        pair = any(known <= set(p) for p in BINARY_PAIRS)
        kind = "binary" if pair else "regression" if all(map(_is_number, _with_points(known))) else "softmax"
        if any(SEPARATORS_OF_LABELS[0] in cell for cell in known):
            kind = MULTILABEL
    return COLUMN_READERS[check_kind(name, kind)](name, cells, place)


def check_kind(name: str, kind: str) -> str:
    """Return `kind` if it is a registered kind of head, else raise; `name` is the column."""
    if kind not in COLUMN_READERS:
        load_entry_points()
    if kind not in COLUMN_READERS:
        raise UnknownName(
            f"unknown kind {kind!r} of target {name!r}{did_you_mean(kind, COLUMN_READERS)}; "
            f"known: {', '.join(COLUMN_READERS)}; a kind of your own needs --plugin"
        )
    return kind


def read_classes(name: str, cells: list[str], place: Callable[[int], str]) -> Target:
    """Return class indices; the classes are the names that occur, in natural order."""
    return make_softmax_target(cells)


def read_two_classes(name: str, cells: list[str], place: Callable[[int], str]) -> Target:
    """Return 0, 1, or -1 where unknown: of no/yes, false/true, 0/1, or of the two values that occur, in order."""
    known = {c.casefold() for c in cells if c}
    pair = next((p for p in BINARY_PAIRS if known <= set(p)), None)
    classes = pair or sort_classes(known)
    if len(classes) != 2 or find_alike(classes):
        raise TransferError(f"the column {name!r} is not binary: it has {len(classes)} different values")
    index = {"": -1, classes[0]: 0, classes[1]: 1}
    return Target(np.array([index[c.casefold()] for c in cells], dtype=np.int64), "binary", classes)


def read_numbers(name: str, cells: list[str], place: Callable[[int], str]) -> Target:
    """Return finite numbers as float64, NaN where unknown; decimal commas are read in a column without points.

    Raises
    ------
    TransferError
        A cell is no finite number, or every comma has three digits behind it, so that it may separate thousands.
    """
    plain = _with_points(cells)
    for row, (cell, text) in enumerate(zip(cells, plain, strict=True)):
        if text and not _is_number(text):
            raise TransferError(f"{place(row)}: {name} is {cell!r}, not a finite number")
        if text != cell and all(re.fullmatch(r"-?\d{1,3},\d{3}", c) for c in cells if "," in c):
            raise TransferError(f"{place(row)}: {name} is {cell!r}: does its comma separate thousands? Write a point")
    return Target(np.array([float(text) if text else math.nan for text in plain]), "regression")


def _with_points(cells: Collection[str]) -> list[str]:
    """Return `cells` with decimal points for commas, unless one has a point already."""
    return list(cells) if any("." in cell for cell in cells) else [cell.replace(",", ".") for cell in cells]


COLUMN_READERS: dict[str, ColumnReader] = {
    "softmax": read_classes,
    "binary": read_two_classes,
    "regression": read_numbers,
    MULTILABEL: read_label_sets,
}
"""By head kind; ``transfer.register_head`` adds further ones."""


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and "_" not in cell  # Python reads 1_1 as 11
    except ValueError:
        return False
