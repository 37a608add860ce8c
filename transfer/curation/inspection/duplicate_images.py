"""Duplicates and near-duplicates: with conflicting labels, on both sides of a split, and all others."""

from collections.abc import Iterator

import numpy as np

from transfer.curation.inspection.finding import Finding, FoundItem
from transfer.data.duplicates import Inspection, connect_pairs, group_duplicates, group_near_duplicates, merge_groups
from transfer.data.table import ImageTable

REMOVE = "Keep one image of each group. A split that training draws has the others on one side, but counts them all."
# Least cosine of the centred features of near-duplicates. Of 59 pairs of flowers12 with near hashes all but two have
# it (tf_efficientnet_lite0; mobilenetv2_100: all but one). Different bikes of Office-31 on white have up to 0.94, and
# the same mouse in another colour can have more.
MIN_COSINE = 0.95
_BLOCK_ROWS = 256  # of a group, compared with all others at once


def split_by_features(groups: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return `groups` (N,) split where no chain of images joins them whose features (N, F) are similar (MIN_COSINE).

    Perceptual hashes see the outline alone: of white bikes and black ones, or of a pen and a ruler, they are equal.
    """
    x = features - features.mean(0)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    found, used = np.zeros(len(groups), np.int64), 0
    for rows in np.split(np.argsort(groups, kind="stable"), np.cumsum(np.unique(groups, return_counts=True)[1])[:-1]):
        part = connect_pairs(_find_similar_pairs(x[rows]), len(rows)) if len(rows) > 1 else np.zeros(1, np.int64)
        found[rows] = used + part
        used += int(part.max()) + 1
    return found


def _find_similar_pairs(x: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the pairs of similar rows of `x`, of length 1, block by block: memory grows with N only."""
    for start in range(0, len(x), _BLOCK_ROWS):
        pairs = np.stack(np.nonzero(x[start : start + _BLOCK_ROWS] @ x[start:].T >= MIN_COSINE))
        yield pairs + start


def find_duplicates(table: ImageTable, inspection: Inspection, features: np.ndarray) -> Iterator[Finding]:
    """Yield findings on groups of (near-)duplicates, the largest groups first; kinds without a group are left out.

    A group with several classes, or on several sides of a given split, is in the finding on these too.
    """
    by_bytes = group_duplicates(inspection)
    exact = _groups(by_bytes)
    similar = merge_groups([by_bytes, split_by_features(group_near_duplicates(inspection), features)])
    known = set(exact)
    near = [rows for rows in _groups(similar) if rows not in known]
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
        "Perceptual hashes and features are nearly equal: scaled or recompressed copies, or pictures taken in a row.",
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
