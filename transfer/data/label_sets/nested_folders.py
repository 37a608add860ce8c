"""Nested folders as labels: an image in ``red/round`` shows both, whatever the order of the folders."""

from collections.abc import Sequence

import numpy as np

from transfer.data.images.file_kinds import describe_left_out
from transfer.data.label_sets.cells import NO_LABEL, check_label_names, describe_label_sets, mark_labels
from transfer.data.layout import OUTSIDE, FoundImages
from transfer.data.left_out import LeftOut
from transfer.data.split_names import describe_splits, read_splits
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target, sort_classes
from transfer.errors import TransferError, list_examples

NESTED = "nested"
"""The value of ``--labels`` by which every folder above an image is one of its labels."""

NESTED_TARGET = "labels"  # the name of the target


def arrange_nested_images(images: FoundImages, paths: Sequence[str], *, source: str, name: str) -> ImageTable:
    """Return the table of at least one of `images`, each with the names of the folders above it as labels.

    The first level may be splits instead. A folder called ``none`` holds images without any label; images in no folder
    are left out and named.

    Parameters
    ----------
    images : sequence
        Folder names from the root down and file name of each.
    paths : sequence of str
    source : str
        The root, for error messages.
    name : str
        Name of the table.

    Raises
    ------
    TransferError
        Splits beside other folders, ``none`` beside labels, or no image with a label.
    """
    meanings = _read_top_splits(source, [where[0] for where, _ in images if where])
    split = [meanings.get(where[0], "") if where else "" for where, _ in images]
    labels = [[*where[1:]] if part else [*where] for (where, _), part in zip(images, split, strict=True)]
    rows = [row for row, above in enumerate(labels) if above]
    outside = [row for row, above in enumerate(labels) if not above]
    left_out = [LeftOut("/".join((*images[row][0], images[row][1])), OUTSIDE) for row in outside]
    none = {row for row in rows if any(each.casefold() in NO_LABEL for each in labels[row])}
    if mixed := next((row for row in none if len(labels[row]) > 1), None):
        raise TransferError(f"{source}: {'/'.join(images[mixed][0])} is 'none' beside labels: move these images")
    classes = sort_classes({each for row in rows if row not in none for each in labels[row]})
    if not classes:
        raise TransferError(f"{source} holds no image in a folder that names a label")
    check_label_names(source, classes)
    shown = [[] if row in none else labels[row] for row in rows]
    target = mark_labels(classes, shown, [[]] * len(rows), np.ones(len(rows), bool))
    choices = [describe_label_sets(NESTED_TARGET, target, "by nested folders")]
    choices += [f"splits by the folders on level 1: {how}"] if (how := describe_splits(meanings)) else []
    blank = np.full(len(rows), "")
    return ImageTable(
        paths=np.array([paths[row] for row in rows]),
        targets={
            "object": make_softmax_target(blank.tolist()),
            "domain": make_softmax_target([DEFAULT_DOMAIN] * len(rows)),
            NESTED_TARGET: target,
        },
        split=np.array([split[row] for row in rows]),
        group=blank,
        name=name,
        notes=(*choices, *(f"left out: {line}" for line in describe_left_out(left_out))),
        choices=tuple(choices),
        left_out=tuple(sorted(left_out)),
    )


def _read_top_splits(source: str, tops: Sequence[str]) -> dict[str, str]:
    """Return the split that each folder of the first level is; none if they are labels."""
    meanings = read_splits(sorted({*tops}))
    named = [name for name, split in meanings.items() if split]
    if len(named) == len(meanings):
        return meanings if "train" in meanings.values() else {}
    if "train" in meanings.values():
        others = list_examples([name for name in meanings if name not in named], 3)
        raise TransferError(
            f"{source} holds splits ({', '.join(named)}) beside {others}: put every image under train, val or test, or "
            "rename the folders that are no splits"
        )
    return {}
