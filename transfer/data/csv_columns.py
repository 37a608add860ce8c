"""Read the cells of a CSV manifest: its separator, the names of its columns, and the files that its paths mean."""

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.data.left_out import LeftOut
from transfer.errors import TransferError, did_you_mean
from transfer.runtime.files import open_regular

MANIFEST_COLUMNS = ("path", "object", "domain", "split", "group")  # columns with a fixed meaning
CSV_SUFFIXES = (".csv", ".tsv")
SEPARATORS = (",", ";", "\t")
OTHER_NAMES = {"path": ("filename", "file", "image"), "object": ("class", "label")}
"""Further names of columns. One of them counts only if the column's own name is missing."""
_MAX_HEADER = 1 << 20  # characters
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a Windows path with a drive letter, or of a network share


@dataclass(frozen=True)
class CsvColumns:
    """Stripped cells of a CSV file by column, and where its rows are.

    Parameters
    ----------
    cells : dict of str to list of str
        Columns with a fixed meaning under the names of `MANIFEST_COLUMNS`, others under their own.
    lines : list of int
        Line number of each row.
    ragged : list of LeftOut
        Rows with another number of cells than the header, which are in neither.
    renamed : dict of str to str
        Names in the file of columns with a fixed meaning, where they differ: ``{"object": "label"}``.
    """

    cells: dict[str, list[str]]
    lines: list[int]
    ragged: list[LeftOut]
    renamed: dict[str, str]


def read_csv(file: Path) -> CsvColumns:
    """Read a CSV file with a header: UTF-8 or UTF-16, separated by commas, semicolons or tabs.

    Raises
    ------
    TransferError
        The file cannot be read, has no row, no column for the path or the object, or two that could be it.
    """
    rows: list[list[str]] = []
    ragged: list[LeftOut] = []
    lines: list[int] = []
    try:
        separator = _split_header(file)[0]
        with _open(file) as stream:
            reader = csv.reader(stream, delimiter=separator, strict=True)
            header, renamed = _name_columns(file, [c.strip() for c in next(reader, [])])
            path = header.index("path")
            for row in reader:
                row = [cell.strip() for cell in row]
                if not any(row):
                    continue
                if len(row) != len(header):
                    reason = f"{len(row)} cell{'s' * (len(row) > 1)}, but the header has {len(header)}"
                    name = row[path] if path < len(row) else ""
                    ragged.append(LeftOut(name, reason, place_of(file, reader.line_num)))
                    continue
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeError, csv.Error) as error:
        raise TransferError(f"cannot read {file} as a UTF-8 CSV: {error}") from error
    if not rows and not ragged:
        raise TransferError(f"no image in {file}: it has a header and no rows")
    cells = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    return CsvColumns(cells, lines, ragged, renamed)


def place_of(file: Path, line: int) -> str:
    """Return where a row is listed, for messages: ``list.csv line 7``."""
    return f"{file.name} line {line}"


def read_header(file: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file in lower case; none if it is no readable CSV file."""
    if file.suffix.lower() not in CSV_SUFFIXES:
        return ()
    try:
        return tuple(name.lower() for name in _split_header(file)[1])
    except (OSError, UnicodeError, csv.Error):
        return ()


def find_listed_file(folder: Path, path: str) -> str:
    """Return the file that a cell of a manifest in `folder` names; backslashes may separate its parts.

    Raises
    ------
    TransferError
        There is no such file, or the path has a drive letter of Windows and this is another system.
    """
    found = os.path.join(folder, path)
    if not os.path.isfile(found) and "\\" in path and os.name != "nt" and not _DRIVE.match(path):
        found = os.path.join(folder, path.replace("\\", "/"))
    if os.path.isfile(found):  # Path.is_file raises if the name is too long
        return str(folder / found)
    if os.name != "nt" and _DRIVE.match(path):
        raise TransferError(f"{path} is a path of another system (Windows): write paths relative to the CSV file")
    raise TransferError(f"no file {folder / path}")


def _open(file: Path) -> io.TextIOWrapper:
    stream = open_regular(file)
    try:
        mark = stream.read(2)
        stream.seek(0)
    except OSError:
        stream.close()
        raise
    encoding = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # each drops its byte order mark
    return io.TextIOWrapper(stream, encoding=encoding, newline="")


def _split_header(file: Path) -> tuple[str, list[str]]:
    """Return the separator and the stripped column names: those with a column for the path, else the most columns."""
    with _open(file) as stream:
        line = stream.readline(_MAX_HEADER)
    split = []
    for separator in SEPARATORS:
        names = [c.strip() for c in next(csv.reader([line], delimiter=separator), [])]
        split.append((separator, names))
        if {"path", *OTHER_NAMES["path"]} & {name.lower() for name in names}:
            return split[-1]
    return max(split, key=lambda pair: len(pair[1]))


def _name_columns(file: Path, header: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the header with the fixed names of `MANIFEST_COLUMNS`, and what these are in the file if not the same."""
    names = [c.lower() if c.lower() in MANIFEST_COLUMNS else c for c in header]
    twice = sorted({c for c in names if names.count(c) > 1})
    if twice:
        raise TransferError(f"{file} has the column {twice[0]!r} more than once")
    renamed = {}
    for needed, others in OTHER_NAMES.items():
        if needed in names:
            continue
        found = [place for place, name in enumerate(names) if name.lower() in others]
        if len(found) > 1:
            which = " and ".join(repr(names[place]) for place in found)
            raise TransferError(f"{file} has the columns {which}, either of which could be the {needed}: rename one")
        if not found:
            raise TransferError(
                f"{file} has no column {needed!r}{did_you_mean(needed, names)}: a manifest has "
                f"path,object[,domain][,split][,group]; {needed} may also be called {' or '.join(others)}"
            )
        renamed[needed] = names[found[0]]
        names[found[0]] = needed
    return names, renamed
