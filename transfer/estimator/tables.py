"""Tables of the images that an estimator is given."""

from typing import Any

import numpy as np

from transfer.data.table import ImageTable, Target


def make_image_table(paths: np.ndarray, targets: dict[str, Target]) -> ImageTable:
    """Return the table of the images at `paths` (N,) with `targets`; an object or a domain that has none is unknown."""
    empty = np.full(len(paths), "")
    blank = Target(np.full(len(paths), -1))
    return ImageTable(paths, {"object": blank, "domain": blank} | targets, empty, empty, "X")


def get_labels(table: ImageTable) -> Any:
    """Return the class names (N,) of a table's objects; of one that has only labels, these."""
    if table.has_objects:
        return get_class_names(table.targets["object"])
    return next(target for target in table.targets.values() if target.values.ndim == 2)


def get_class_names(target: Target) -> np.ndarray:
    """Return the class names (N,) of a table's target, empty where unknown."""
    return np.array([*target.classes, ""])[target.values]
