"""Several labels an image for the classifier: an indicator matrix, or a list of sets -> a target, and back."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from transfer.data.label_sets.cells import MULTILABEL, check_label_names, format_label_set, mark_labels
from transfer.data.pixel_files import InputError
from transfer.data.table import Target

LABELS_HEAD = "labels"  # the name of the head


def has_several_labels(y: Any) -> bool:
    """Return whether `y` is a matrix with a column for each label, or has a set, list or tuple for an image.

    Examples
    --------
    >>> [has_several_labels(y) for y in ([[1, 0], [0, 1]], [{"red"}, set()], ["red", "blue"], np.ones((3, 1)))]
    [True, True, False, False]
    """
    if isinstance(y, Target):
        return y.values.ndim == 2
    if hasattr(y, "ndim") and y.ndim != 1:
        return y.ndim == 2 and y.shape[1] > 1
    return isinstance(y, Sequence | np.ndarray) and any(_is_set(each) for each in y)


def read_label_matrix(y: Any) -> tuple[np.ndarray, Target]:
    """Return the labels, as they were given, and which of them each image shows.

    Parameters
    ----------
    y : Target, matrix (N, labels), or sequence of sets, lists or tuples of labels
        The matrix has 1 and 0, and -1 or NaN where it is unknown whether an image shows a label; its labels are the
        names of its columns, or their numbers. In a sequence, None is an image of which nothing is known.

    Raises
    ------
    InputError
        Other values, labels that cannot be sorted, or no label at all.
    """
    if isinstance(y, Target):
        return np.array(y.classes), y
    if hasattr(y, "ndim") or not any(isinstance(each, set | frozenset) for each in y):
        matrix = _find_matrix(y)
        if matrix is not None:
            columns = getattr(y, "columns", None)
            classes = np.arange(matrix.shape[1]) if columns is None else np.asarray(columns)
            return classes, Target(matrix, MULTILABEL, tuple(map(str, classes)))
    known = np.array([not _is_missing(each) for each in y])
    sets = [each if _is_set(each) else [] if _is_missing(each) else [each] for each in y]
    try:
        classes = np.array(sorted({label for labels in sets for label in labels}))
    except TypeError as error:
        raise InputError(f"y mixes types of labels that cannot be sorted: {error}") from error
    if not len(classes):
        raise InputError("y names no label at all")
    names = tuple(map(str, classes))
    check_label_names("y", names)
    return classes, mark_labels(names, [[*map(str, labels)] for labels in sets], [[]] * len(sets), known)


def name_label_sets(target: Target) -> np.ndarray:
    """Return the set of labels of each image as text, None where all of it is unknown, object (N,)."""
    names = [format_label_set(target.classes, values) or None for values in target.values]
    return np.array(names, dtype=object)


def to_indicators(y: Any, classes: np.ndarray) -> np.ndarray:
    """Return `y`, as :func:`read_label_matrix` takes it, as an indicator matrix (N, labels) of `classes`.

    Raises
    ------
    InputError
        It has labels that are not among `classes`, or that are unknown.
    """
    given, target = read_label_matrix(y)
    names = [*map(str, classes)]
    if foreign := [str(label) for label in given if str(label) not in names]:
        raise InputError(f"y has labels that were not fitted: {', '.join(foreign[:3])}")
    if (target.values < 0).any():
        raise InputError("y has unknown labels, and accuracy compares all labels of an image: leave these images out")
    matrix = np.zeros((len(target.values), len(names)), np.int64)
    matrix[:, [names.index(str(label)) for label in given]] = target.values
    return matrix


def _find_matrix(y: Any) -> np.ndarray | None:
    """Return `y` as int8 with -1 where unknown; None if its rows are sets of labels that are no such matrix."""
    try:
        values = np.asarray(y, dtype=float)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim == 2:
        values = np.where(np.isnan(values), -1, values)
        if np.isin(values, (-1, 0, 1)).all():
            return values.astype(np.int8)
    if hasattr(y, "ndim") and y.ndim == 2:
        raise InputError("y is a matrix with other values than 1, 0, and -1 or NaN for unknown")
    return None


def _is_set(labels: Any) -> bool:
    return isinstance(labels, Collection) and not isinstance(labels, str | bytes)


def _is_missing(labels: Any) -> bool:
    return labels is None or (isinstance(labels, float) and np.isnan(labels))
