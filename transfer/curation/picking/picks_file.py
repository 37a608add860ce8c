"""The CSV file of picked images: read with the labels that were filled in, written with those and the new images."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer.data.manifests.csv_columns import MANIFEST_COLUMNS, read_csv
from transfer.data.manifests.listed_files import ListedFiles
from transfer.errors import TransferError
from transfer.runtime.files import atomic_write, open_text

PICK_COLUMNS = ("suggested", "score", "reason")

Cells = dict[str, str]
"""A row by column."""


@dataclass(frozen=True)
class PicksFile:
    """What a CSV file of picked images holds, by the absolute path of the image.

    Cells are those of the file; columns that were added to it are among them.
    """

    rows: Mapping[str, Cells] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that were filled in, by path."""
        return {path: cells["object"] for path, cells in self.rows.items() if cells["object"]}

    @property
    def waiting(self) -> list[str]:
        """Paths of the images without a label."""
        return [path for path, cells in self.rows.items() if not cells["object"]]


def read_picks(file: Path) -> PicksFile:
    """Read a CSV file of picked images; it holds nothing if there is no such file.

    Raises
    ------
    TransferError
        It cannot be read, or names an image that does not exist.
    """
    if not file.exists():
        return PicksFile()
    try:
        read = read_csv(file)
        if read.ragged:
            raise TransferError(f"{read.ragged[0].where}: {read.ragged[0].reason}")
        listed = ListedFiles([file.absolute().parent])
        paths = [os.path.normpath(listed.find(path)) for path in read.cells["path"]]
    except TransferError as error:
        raise TransferError(f"{error}; repair {file}, or replace it with --overwrite") from None
    columns = {"object": [""] * len(paths)} | read.cells
    return PicksFile({path: {name: cells[i] for name, cells in columns.items()} for i, path in enumerate(paths)})


def write_picks(file: Path, rows: Mapping[str, Cells]) -> None:
    """Write rows by absolute path, in their order, in the form that ``transfer train`` reads.

    Paths below the folder of `file` are relative to it. Of the columns of a manifest, those that are empty in all rows
    are left out, except path and object.

    Raises
    ------
    TransferError
        It cannot be written.
    """
    cells = [each | {"path": _shorten(path, file.absolute().parent)} for path, each in rows.items()]
    given = dict.fromkeys(name for each in cells for name in each)
    fixed = [name for name in MANIFEST_COLUMNS if name in ("path", "object") or any(each.get(name) for each in cells)]
    others = [name for name in given if name not in (*MANIFEST_COLUMNS, *PICK_COLUMNS)]
    columns: Sequence[str] = [*fixed, *PICK_COLUMNS, *others]
    with atomic_write(file) as temporary, open_text(temporary, "w") as stream:
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)


def _shorten(path: str, folder: Path) -> str:
    inside = Path(path).is_relative_to(folder)
    return Path(path).relative_to(folder).as_posix() if inside else path
