"""Classes without a training image: a head has no output for them, and test images that show them count as errors."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from transfer.data.splits import Splits
from transfer.data.table import LABEL_SETS, ImageTable, Target
from transfer.errors import list_examples
from transfer.heads.registry import find_head_kind


def put_trained_first(table: ImageTable, rows: np.ndarray) -> ImageTable:
    """Return `table` with the classes that its training `rows` lack behind the others of each target.

    A head predicts the others alone, by the same indices: a later index is a class that no prediction can be. Classes
    without any image are dropped.
    """
    targets = {}
    for name, target in table.targets.items():
        ranked, trained = _rank(target, rows)
        last = max(trained, int(ranked.values.max(initial=-1)) + 1) if ranked.classes else 0
        targets[name] = replace(ranked, classes=ranked.classes[:last])
    return replace(table, targets=targets)


def drop_untrained_classes(target: Target, rows: np.ndarray) -> Target:
    """Return `target` without the classes that its training `rows` lack; images of these are unknown."""
    ranked, trained = _rank(target, rows)
    if trained == len(target.classes):
        return target
    known = ranked.values < trained
    return replace(ranked, values=np.where(known, ranked.values, -1), classes=ranked.classes[:trained])


def find_untrained(table: ImageTable, rows: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Return by target the names of the classes that the training `rows` lack; no target without such a class."""
    untrained = {}
    for name, target in table.targets.items():
        ranked, trained = _rank(target, rows)
        if trained < len(ranked.classes):
            seen = ranked.classes[:trained]
            untrained[name] = tuple(label for label in target.classes if label not in seen)
    return untrained


def note_untrained(table: ImageTable, splits: Splits) -> list[str]:
    """Return a note for each target of `table` with classes that have no training image."""
    notes = []
    for name, classes in find_untrained(table, splits.train).items():
        target = table.targets[name]
        index = [target.classes.index(label) for label in classes]
        counts = {part: int(np.isin(target.values[getattr(splits, part)], index).sum()) for part in ("val", "test")}
        note = f"{name}: {len(classes)} of {len(target.classes)} classes have no training image and are never predicted"
        note += f" ({list_examples(classes)})"
        if counts["test"]:
            note += f"; {counts['test']} of {len(splits.test)} test images show such a class, each counts as an error"
        if counts["val"]:
            note += f"; {counts['val']} of {len(splits.val)} validation images show such a class and are left out"
        notes.append(note)
    return notes


def describe_untrained(untrained: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the fact that a run logs of what :func:`find_untrained` returns; nothing if there is no such class."""
    found = [f"{name} {list_examples(classes)}" for name, classes in untrained.items()]
    return {"untrained": f"{'; '.join(found)}: no training image, so never predicted"} if found else {}


def _rank(target: Target, rows: np.ndarray) -> tuple[Target, int]:
    """Return `target` with the classes of `rows` first, then other classes with images, and the number of the first."""
    count = len(target.classes)
    if target.kind == LABEL_SETS or not find_head_kind(target.kind).droppable_classes:
        return target, count
    values = target.values[rows]
    seen = np.isin(np.arange(count), values)
    empty = ~seen & ~np.isin(np.arange(count), target.values)
    order = [*np.flatnonzero(seen), *np.flatnonzero(~seen & ~empty), *np.flatnonzero(empty)]
    place = np.full(count + 1, -1)  # one more, for -1
    place[order] = np.arange(count)
    ranked = replace(target, values=place[target.values], classes=tuple(target.classes[i] for i in order))
    return ranked, int(seen.sum())
