"""Duplicates and near-duplicates: with conflicting labels, on both sides of a split, and all others."""

from collections.abc import Iterator

import numpy as np

from transfer.curation.inspection.finding import Finding, FoundItem
from transfer.data.duplicates import Inspection, group_duplicates, group_near_duplicates
from transfer.data.table import ImageTable

REMOVE = "Keep one image of each group. Training keeps the others on one side of the split, but counts them all."


def find_duplicates(table: ImageTable, inspection: Inspection) -> Iterator[Finding]:
    """Yield findings on groups of (near-)duplicates, the largest groups first; kinds without a group are left out.

    A group with several classes, or on several sides of a given split, is in the finding on these too.
    """
    exact, near = _groups(group_duplicates(inspection)), _groups(group_near_duplicates(inspection))
    same_bytes = set(exact)
    near = [rows for rows in near if rows not in same_bytes]
    conflicts = [rows for rows in exact if _count(table.object, rows) > 1]
    yield from _finding(
        "conflicting_labels",
        conflicts,
        table,
        "Byte-identical images with different labels",
        "At most one of the labels is correct. Training leaves all of them out.",
        "Remove the files with the wrong label: transfer review shows them side by side.",
    )
    yield from _finding(
        "near_duplicates_across_classes",
        [rows for rows in near if _count(table.object, rows) > 1],
        table,
        "Near-duplicates with different labels",
        "They look alike but belong to different classes: one label is wrong, or the classes overlap.",
        "Compare them and mend the wrong labels.",
    )
    yield from _finding(
        "leaks",
        [rows for rows in [*exact, *near] if len({*table.split[list(rows)]} - {""}) > 1],
        table,
        "Duplicates on both sides of the split",
        "The given split has the same image in training and in testing, so that the measured accuracy is too high.",
        "Remove one copy, or remove the split and let training draw one, which keeps duplicates together.",
    )
    yield from _finding(
        "duplicates",
        exact,
        table,
        "Byte-identical images",
        "Copies add nothing to training, and count several times in testing.",
        REMOVE,
    )
    yield from _finding(
        "near_duplicates",
        near,
        table,
        "Near-duplicates",
        "Their perceptual hashes are nearly equal: scaled or recompressed copies, or pictures taken in a row.",
        REMOVE,
    )


def _groups(numbers: np.ndarray) -> list[tuple[int, ...]]:
    """Return the rows of each group of two or more, the largest first."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    parts = [tuple(part.tolist()) for part in np.split(order, starts) if len(part) > 1]
    return sorted(parts, key=lambda rows: (-len(rows), rows))


def _count(labels: np.ndarray, rows: tuple[int, ...]) -> int:
    return len({label for label in labels[list(rows)].tolist() if label >= 0})


def _finding(
    kind: str, groups: list[tuple[int, ...]], table: ImageTable, title: str, explanation: str, advice: str
) -> Iterator[Finding]:
    if groups:
        items = [FoundItem(rows, _describe(table, rows)) for rows in groups]
        yield Finding(kind, title, explanation, advice, items)


def _describe(table: ImageTable, rows: tuple[int, ...]) -> str:
    of = list(rows)
    objects = sorted({table.objects[k] for k in table.object[of].tolist() if k >= 0})
    splits = sorted({*table.split[of].tolist()} - {""})
    parts = [f"{len(of)} images", *([" / ".join(objects[:4])] if len(objects) > 1 else [])]
    return "; ".join([*parts, *([f"in {' and '.join(splits)}"] if len(splits) > 1 else [])])
