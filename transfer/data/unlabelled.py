"""Add the images of a folder without classes to a table: as a domain of its own, or of unknown domain."""

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.class_names import match_names
from transfer.data.image_paths import find_images
from transfer.data.images.file_kinds import describe_left_out
from transfer.data.left_out import LeftOut
from transfer.data.shards.address import parse_address
from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.errors import TransferError

NO_CLASS = frozenset({"all", "image", "images", "imgs", "photos", "pictures", "unknown", "unlabeled", "unlabelled"})
"""Names of folders, in lower case, that hold images without labels unless other images have such a class."""
REST = "rest"  # of --unlabelled: no folder, but the rows without a label and what --shots leaves over


def forget_placeholder_classes(table: ImageTable, true_classes: Collection[str] = ()) -> ImageTable:
    """Return `table` in which images of a class named such as ``unlabelled`` have no label, with a note on it.

    A name among `true_classes` is a class like any other.
    """
    target = table.targets["object"]
    spoken_for = {name.strip().casefold() for name in true_classes}
    names = [name for name in target.classes if name.strip().casefold() in NO_CLASS - spoken_for]
    if not names:
        return table
    labels = ["" if i < 0 or target.classes[i] in names else target.classes[i] for i in target.values]
    count = int(np.isin(target.values, [target.classes.index(name) for name in names]).sum())
    note = f"{', '.join(names)}: no class, so {count:,} image{'s have' if count > 1 else ' has'} no label"
    targets = table.targets | {"object": make_softmax_target(labels)}
    return replace(table, targets=targets, notes=(*table.notes, note), choices=(*table.choices, note))


def add_unlabelled_domain(table: ImageTable, folder: Path, domain: str) -> ImageTable:
    """Return `table` with the images of `folder`, at any depth, as a further `domain`; all else of them is unknown.

    Raises
    ------
    TransferError
        The folder has no image, or the table has a domain of that name.
    """
    if match_names([domain], table.domains) != [-1]:
        raise TransferError(
            f"--target-images: {table.name} has a domain {domain!r} already; name the folder's images by --target NAME"
        )
    more = add_unlabelled_images(table, folder, f"are the domain {domain}: their labels are unknown")
    names = [table.domains[i] if i >= 0 else "" for i in table.domain]
    names += [domain] * (len(more) - len(table))
    return replace(more, targets=more.targets | {"domain": make_softmax_target(names)})


def add_unlabelled_folder(table: ImageTable, unlabelled: str | None) -> ImageTable:
    """Return `table` with the images of the folder that ``--unlabelled`` names, if it names one.

    Raises
    ------
    TransferError
        It is neither "rest" nor a folder with images.
    """
    if unlabelled in (None, REST):
        return table
    folder = Path(str(unlabelled)).expanduser()
    if not folder.is_dir():
        raise TransferError(f"--unlabelled {unlabelled}: write rest, or name a folder of images")
    more = add_unlabelled_images(table, folder)
    return replace(more, added=np.arange(len(more)) >= len(table))


def add_unlabelled_images(table: ImageTable, folder: Path, remark: str = "have no label") -> ImageTable:
    """Return `table` with the images of `folder`, at any depth, of which all is unknown; `remark` goes into the notes.

    Raises
    ------
    TransferError
        The folder has no image.
    """
    ignored: list[LeftOut] = []
    found = find_images([str(folder)], ignored=ignored)
    paths = [path if parse_address(path) else os.path.abspath(path) for path in found]
    blank = np.full(len(paths), "")
    notes = [f"{len(paths)} images of {folder} {remark}", *(f"left out: {x}" for x in describe_left_out(ignored))]
    return replace(
        table,
        paths=np.concatenate([table.paths, np.array(paths)]),
        targets={name: _extend(target, len(paths)) for name, target in table.targets.items()},
        split=np.concatenate([table.split, blank]),
        group=np.concatenate([table.group, blank]),
        notes=(*table.notes, *notes),
        sha256=None,
        left_out=(*table.left_out, *ignored),
    )


def _extend(target: Target, rows: int) -> Target:
    """Return `target` with `rows` unknown values more."""
    unknown = np.nan if target.values.dtype.kind == "f" else -1
    more = np.full((rows, *target.values.shape[1:]), unknown, target.values.dtype)
    return replace(target, values=np.concatenate([target.values, more]))
