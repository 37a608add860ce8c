"""images.csv of a run: the images that it used, with their labels, their part of the split and their sha256.

It is a CSV manifest, so that ``transfer train RUN/images.csv`` trains on the same images under the same split.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer.data.label_sets.cells import SEPARATORS_OF_LABELS, format_label_set
from transfer.data.splits import Splits
from transfer.data.table import LABEL_SETS, ImageTable, Target
from transfer.errors import TransferError
from transfer.runs.folder import IMAGES_FILE
from transfer.runtime.files import atomic_write, open_text

DIGEST = "sha256"  # the column of digests

ListedImage = dict[str, str]
"""A line of images.csv by column: path, split, sha256, object, domain, further targets, and perhaps a group."""


def list_images(table: ImageTable, splits: Splits, digests: np.ndarray) -> list[ListedImage]:
    """Return the lines of the rows that `splits` uses, in the order of `table`.

    `digests` are the sha256 of the images, str (N,). A label that must not be used is empty, as an unknown one.
    """
    part = np.full(len(table), "", "U5")
    for name in ("train", "val", "test"):
        part[getattr(splits, name)] = name
    rows = np.flatnonzero(part != "")
    table, part, digests = table.take(rows), part[rows], digests[rows]
    columns = {"path": table.paths.tolist(), "split": part.tolist(), DIGEST: digests.tolist()}
    for name, target in table.targets.items():
        columns[name] = _write_cells(target)
    if table.group.any():
        columns["group"] = table.group.tolist()
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _write_cells(target: Target) -> list[str]:
    """Return values as a manifest has them: names of classes, several with bars between, or numbers; "" if unknown."""
    values = target.values
    if target.kind == LABEL_SETS:  # it stands for the other labels
        return [""] * len(values)
    if values.ndim == 2:
        return [_mark_separator(format_label_set(target.classes, row)) for row in values]
    if target.classes:
        return ["" if i < 0 else target.classes[i] for i in values.tolist()]
    return [repr(value) if known else "" for value, known in zip(values.tolist(), target.known.tolist(), strict=True)]


def _mark_separator(cell: str) -> str:
    """End a cell with a bar if its one label has a comma or semicolon, which would else be read as separators."""
    bar, *others = SEPARATORS_OF_LABELS
    return cell + bar if bar not in cell and any(other in cell for other in others) else cell


def write_image_list(folder: Path, images: Sequence[ListedImage]) -> None:
    """Write images.csv to `folder`; raise a TransferError if it cannot be written."""
    with atomic_write(folder / IMAGES_FILE) as temporary, open_text(temporary, "w") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for image in images for name in image)), restval="")
        writer.writeheader()
        writer.writerows(images)


def read_image_list(run: Path) -> list[ListedImage]:
    """Return the lines of images.csv in the folder `run`.

    Raises
    ------
    TransferError
        There is none, as in runs of earlier versions, or it is damaged.
    """
    file = run / IMAGES_FILE
    if not file.is_file():
        raise TransferError(f"{run} has no {IMAGES_FILE}, which lists its images and their split: train it again")
    try:
        with open_text(file) as opened:
            images = list(csv.DictReader(opened, strict=True))
        needed = {"path", "split", DIGEST, "object", "domain"}
        if not images or any(None in image or None in image.values() or not needed <= image.keys() for image in images):
            raise ValueError("a line is incomplete")
        return images
    except (OSError, ValueError, csv.Error) as error:
        raise TransferError(f"{file} is damaged ({error}): train the run again") from error
