"""The set of labels of each image in place of an object: what splits, duplicates and conflicts go by.

A table may have no object, but other targets with classes. Its object is then their combination: a class such as
``red|round``, of the kind `LABEL_SETS`, which no head predicts.
"""

from dataclasses import replace

import numpy as np

from transfer.data.label_sets.cells import format_label_set
from transfer.data.table import LABEL_SETS, ImageTable, make_softmax_target


def use_label_sets(table: ImageTable) -> ImageTable:
    """Return `table` with the combination of its other labels as its object; unchanged if it has objects, or no others.

    Examples
    --------
    >>> from transfer.data.label_sets.cells import read_label_sets
    >>> blank = np.full(3, "")
    >>> targets = {"object": make_softmax_target(blank), "domain": make_softmax_target(["all"] * 3)}
    >>> targets["tags"] = read_label_sets("tags", ["red|round", "", "red"], str)
    >>> use_label_sets(ImageTable(np.array(["a", "b", "c"]), targets, blank, blank)).objects
    ('red', 'red|round')
    """
    others = {k: t for k, t in table.targets.items() if k not in ("object", "domain") and t.classes}
    if table.objects or not others:
        return table
    parts = []
    for target in others.values():
        if target.values.ndim == 2:
            parts.append([format_label_set(target.classes, values) for values in target.values])
        else:
            parts.append([*np.array([*target.classes, ""])[target.values]])
    names = [", ".join(filter(None, cells)) for cells in zip(*parts, strict=True)]
    object_ = replace(make_softmax_target(names), kind=LABEL_SETS)
    return replace(table, targets=table.targets | {"object": object_})


def count_labels(table: ImageTable, rows: np.ndarray) -> dict[str, int]:
    """Return how many of `rows` show each object, or each label where the object is a set of labels, by its name."""
    if table.has_objects:
        counts = np.bincount(table.object[rows][table.object[rows] >= 0], minlength=len(table.objects))
        return dict(zip(table.objects, counts.tolist(), strict=True))
    found: dict[str, int] = {}
    for target in table.targets.values():
        if target.values.ndim == 2:
            found |= dict(zip(target.classes, (target.values[rows] == 1).sum(0).tolist(), strict=True))
    return found
