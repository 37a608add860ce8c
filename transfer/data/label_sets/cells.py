"""Cells of a table that name several labels, such as ``red|round|metal`` -> for each label 1, 0 or unknown."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from transfer.data.table import Target, sort_classes
from transfer.errors import TransferError

MULTILABEL = "multilabel"
"""The kind of head that predicts several labels an image."""

SEPARATORS_OF_LABELS = ("|", ";", ",")
NO_LABEL = ("none", "-")  # a cell that says: the image shows none of the labels
UNKNOWN_MARK = "?"  # before a label of which it is not known whether the image shows it


def find_separator(cells: Sequence[str]) -> str:
    """Return what separates the labels in `cells`: the first of `SEPARATORS_OF_LABELS` that occurs, else the first.

    Examples
    --------
    >>> find_separator(["red|round", "red, dark|flat"]), find_separator(["red, round"]), find_separator(["red"])
    ('|', ',', '|')
    """
    return next((s for s in SEPARATORS_OF_LABELS if any(s in cell for cell in cells)), SEPARATORS_OF_LABELS[0])


def read_label_sets(name: str, cells: Sequence[str], place: Callable[[int], str]) -> Target:
    """Return the labels of each image; they are the names that occur, in natural order.

    An empty cell is unknown, ``none`` or ``-`` is no label, and ``?round`` says that it is not known whether the image
    shows ``round``. A label that a cell does not name is one that the image does not show.

    Parameters
    ----------
    name, place
        See :data:`transfer.data.target_columns.ColumnReader`.

    Raises
    ------
    TransferError
        No label at all, or ``none`` beside a label.

    Examples
    --------
    >>> read_label_sets("tags", ["red|round", "none", "", "red|?round"], str)
    Target(values=array([[ 1,  1],
           [ 0,  0],
           [-1, -1],
           [ 1, -1]], dtype=int8), kind='multilabel', classes=('red', 'round'), thresholds=())
    """
    separator = find_separator(cells)
    rows = [[part for label in cell.split(separator) if (part := label.strip())] for cell in cells]
    for row, labels in enumerate(rows):
        if any(label.casefold() in NO_LABEL for label in labels):
            if len(labels) > 1:
                raise TransferError(f"{place(row)}: {name} is {cells[row]!r}: {labels[0]!r} stands beside other labels")
            rows[row] = []
    names = {label.removeprefix(UNKNOWN_MARK).strip() for labels in rows for label in labels} - {""}
    if not names:
        raise TransferError(f"the column {name!r} names no label at all")
    shown = [[label for label in labels if not label.startswith(UNKNOWN_MARK)] for labels in rows]
    unsure = [[label[1:].strip() for label in labels if label.startswith(UNKNOWN_MARK)] for labels in rows]
    return mark_labels(sort_classes(names), shown, unsure, np.array([cell != "" for cell in cells]))


def mark_labels(
    classes: tuple[str, ...], shown: Sequence[Sequence[str]], unsure: Sequence[Sequence[str]], known: np.ndarray
) -> Target:
    """Return the target of images with the labels `shown`, and perhaps those `unsure`; all is unknown beside `known`.

    Parameters
    ----------
    known : ndarray of bool, shape (N,)
    """
    index = {label: place for place, label in enumerate(classes)}
    values = np.zeros((len(known), len(classes)), np.int8)
    for row, (labels, doubtful) in enumerate(zip(shown, unsure, strict=True)):
        values[row, [index[label] for label in doubtful if label in index]] = -1
        values[row, [index[label] for label in labels]] = 1
    values[~known] = -1
    return Target(values, MULTILABEL, classes)


def format_label_set(classes: Sequence[str], values: np.ndarray) -> str:
    """Return the cell that :func:`read_label_sets` reads as the `values` (classes,) of one image.

    Examples
    --------
    >>> [format_label_set(["red", "round"], np.array(v)) for v in ([1, 1], [0, 0], [-1, -1], [1, -1], [0, -1])]
    ['red|round', 'none', '', 'red|?round', '?round']
    """
    if (values < 0).all():
        return ""
    marks = {1: "", -1: UNKNOWN_MARK}
    parts = [marks[value] + label for label, value in zip(classes, values.tolist(), strict=True) if value]
    return SEPARATORS_OF_LABELS[0].join(parts) or NO_LABEL[0]


def spell_label_set(cell: str, spelled: Mapping[str, str]) -> str:
    """Return a cell of :func:`format_label_set` with each label that `spelled` has spelled so, sorted, each once.

    Examples
    --------
    >>> spell_label_set("Round|?red", {"Round": "round"}), spell_label_set("", {})
    ('?red|round', '')
    """
    parts = cell.split(SEPARATORS_OF_LABELS[0])
    labels = {part.removeprefix(UNKNOWN_MARK): part.startswith(UNKNOWN_MARK) for part in parts}
    return SEPARATORS_OF_LABELS[0].join(
        sorted({UNKNOWN_MARK * unsure + spelled.get(label, label) for label, unsure in labels.items()})
    )


def list_labels(cells: Iterable[str]) -> list[str]:
    """Return the labels that cells of :func:`format_label_set` name, each once, in order.

    Examples
    --------
    >>> list_labels(["red|?round", "", "none", "flat|red"])
    ['red', 'round', 'flat']
    """
    parts = dict.fromkeys(part for cell in cells for part in cell.split(SEPARATORS_OF_LABELS[0]))
    names = dict.fromkeys(part.removeprefix(UNKNOWN_MARK) for part in parts)
    return [name for name in names if name and name not in NO_LABEL]


def describe_label_sets(name: str, target: Target, how: str) -> str:
    """Return in one line what was read of the target `name`: how, the labels, and how many images have how many.

    Examples
    --------
    >>> cells = ["red|round", "none", "", "red|?round"]
    >>> describe_label_sets("tags", read_label_sets("tags", cells, str), "separated by '|'")
    "tags: 2 labels separated by '|', 1.0 an image; 1 image has none of them; 1 is unlabelled, 1 labelled in part"
    """
    known = target.known
    values = target.values[known]
    part, none = int((values < 0).any(1).sum()), int((values == 0).all(1).sum())
    mean = float((values == 1).sum(1).mean()) if len(values) else 0.0
    text = f"{name}: {len(target.classes)} label{'s' * (len(target.classes) != 1)} {how}, {mean:.1f} an image"
    if none:
        text += f"; {none:,} image{'s have' if none > 1 else ' has'} none of them"
    unknown = int((~known).sum())
    rest = [f"{unknown:,} {'are' if unknown > 1 else 'is'} unlabelled"] if unknown else []
    if unknown and not none and how.startswith("separated"):  # was no label meant?
        rest[0] += f" (the cell is empty; {NO_LABEL[0]!r} says that an image shows no label)"
    rest += [f"{part:,} labelled in part"] if part else []
    return f"{text}; {', '.join(rest)}" if rest else text


def check_label_names(source: str, labels: Sequence[str]) -> None:
    """Raise a TransferError if one of `labels`, which no cell named, cannot be written in a cell."""
    for label in labels:
        if SEPARATORS_OF_LABELS[0] in label or label.startswith(UNKNOWN_MARK) or label.casefold() in NO_LABEL:
            raise TransferError(
                f"{source}: {label!r} cannot be the name of a label: without {SEPARATORS_OF_LABELS[0]!r}, not after "
                f"{UNKNOWN_MARK!r}, and none of {', '.join(NO_LABEL)}"
            )
