"""Read a CSV manifest into a table: one line per image, with further columns to predict."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.data.target_columns import check_kind, read_target
from transfer.errors import TransferError, did_you_mean
from transfer.runtime.files import open_regular

MANIFEST_COLUMNS = ("path", "object", "domain", "split", "group")  # columns with a fixed meaning
_MAX_HEADER = 1 << 20  # characters
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_manifest(file: Path) -> bool:
    """Return whether `file` is a ``.csv`` with a ``path`` column."""
    if file.suffix.lower() != ".csv":
        return False
    try:
        with io.TextIOWrapper(open_regular(file), encoding="utf-8-sig", newline="") as stream:
            return "path" in (c.strip().lower() for c in next(csv.reader([stream.readline(_MAX_HEADER)]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_manifest(file: Path, targets: Sequence[str] = ()) -> ImageTable:
    """Read a CSV manifest with columns ``path,object[,domain][,split][,group]`` and any others.

    It is UTF-8, comma separated, with a header line. Paths are relative to it; an empty cell means unknown; rows keep
    the file's order.

    Parameters
    ----------
    targets : sequence of str
        Further columns to predict: ``NAME`` or ``NAME:KIND``, a kind of head such as ``softmax`` or ``regression``.
        Without a kind, a column of 0/1, yes/no or true/false is binary, one of other numbers regression, any
        other softmax.

    Raises
    ------
    TransferError
        A missing file or column, or an invalid cell; names the line.
    """
    columns, lines = _read_columns(file)
    folder = file.absolute().parent

    def place(row: int) -> str:
        return f"{file.name} line {lines[row]}"

    for row, path in enumerate(columns["path"]):
        if not path:
            raise TransferError(f"{place(row)}: the path is empty")
        if not os.path.isfile(os.path.join(folder, path)):  # Path.is_file raises if the name is too long
            raise TransferError(f"{place(row)}: no file {folder / path}")
    columns["path"] = [str(folder / p) for p in columns["path"]]
    return make_table(columns, targets, name=file.stem, source=file.name, place=place)


def make_table(
    columns: dict[str, list[str]], targets: Sequence[str], *, name: str, source: str, place: Callable[[int], str]
) -> ImageTable:
    """Return the table of `columns`: lists of cells by name; ``path`` and ``object`` are required.

    `targets` and errors are as for :func:`read_manifest`. In errors, `source` names the origin of the columns, and
    `place` describes where a row stands.
    """
    n = len(columns["path"])
    unknown = [""] * n
    splits = columns.get("split", unknown)
    for row, split in enumerate(splits):
        if split and split.lower() not in SPLITS:
            raise TransferError(
                f"{place(row)}: unknown split {split!r}{did_you_mean(split, SPLITS)}; known: {', '.join(SPLITS)}"
            )
    domains = columns.get("domain", unknown)
    extra = {}
    for spec in targets:
        column, kind = _parse(spec, columns, source)
        extra[column] = read_target(column, kind, columns[column], place)
    return ImageTable(
        paths=np.array(columns["path"]),
        targets={
            "object": make_softmax_target(columns["object"]),
            "domain": make_softmax_target(domains if any(domains) else [DEFAULT_DOMAIN] * n),
            **extra,
        },
        split=np.array([SPLITS.get(s.lower(), "") for s in splits]),
        group=np.array(columns.get("group", unknown)),
        name=name,
    )


def _read_columns(file: Path) -> tuple[dict[str, list[str]], list[int]]:
    """Return the stripped cells by column (fixed columns in lower case) and the line number of each row."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with io.TextIOWrapper(open_regular(file), encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [c.strip() for c in next(reader, [])]
            for row in reader:
                row = [cell.strip() for cell in row]
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise TransferError(
                        f"{file.name} line {reader.line_num}: {len(row)} cells, but the header has {len(header)}"
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TransferError(f"cannot read {file} as a UTF-8 CSV: {error}") from error
    header = [c.lower() if c.lower() in MANIFEST_COLUMNS else c for c in header]
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise TransferError(f"{file} has the column {twice[0]!r} more than once")
    for needed in ("path", "object"):
        if needed not in header:
            raise TransferError(
                f"{file} has no column {needed!r}{did_you_mean(needed, header)}: "
                "a manifest has path,object[,domain][,split][,group]"
            )
    if not rows:
        raise TransferError(f"no image in {file}: it has a header and no rows")
    return {name: list(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}, lines


def _parse(spec: str, columns: dict[str, list[str]], source: str) -> tuple[str, str | None]:
    """Return the column and kind that ``NAME`` or ``NAME:KIND`` means."""
    name, kind = spec, ""
    if name not in columns and ":" in spec:  # a column's own name may hold a colon
        name, _, kind = spec.rpartition(":")
    if name in MANIFEST_COLUMNS:
        raise TransferError(f"{name!r} is not a further target: object and domain always have a head")
    if name not in columns:
        others = [c for c in columns if c not in MANIFEST_COLUMNS]
        has = ", ".join(others) or "no further column"
        raise TransferError(f"no column {name!r} in {source}{did_you_mean(name, others)}: it has {has}")
    return name, check_kind(name, kind) if kind else None
