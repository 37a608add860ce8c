"""Read a CSV manifest into a table: one line per image, with further columns to predict."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.csv_columns import MANIFEST_COLUMNS, OTHER_NAMES, find_listed_file, read_csv, read_header
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.data.target_columns import check_kind, read_target
from transfer.errors import TransferError, did_you_mean

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_manifest(file: Path) -> bool:
    """Return whether `file` is a CSV file with a ``path`` column."""
    return "path" in read_header(file)


def is_similar_to_manifest(file: Path) -> bool:
    """Return whether `file` is a CSV file with columns that other tools use for path and object."""
    names = set(read_header(file))
    return bool(names & set(OTHER_NAMES["path"])) and bool(names & {"object", *OTHER_NAMES["object"]})


def find_manifest_fault(file: Path) -> str:
    """Return why `file` cannot be read as a manifest, by its columns and its first image; an empty string if it can."""
    try:
        read = read_csv(file)
        find_listed_file(file.absolute().parent, read.cells["path"][0])
    except TransferError as error:
        return str(error)
    return ""


def read_manifest(file: Path, targets: Sequence[str] = ()) -> ImageTable:
    """Read a CSV manifest with columns ``path,object[,domain][,split][,group]`` and any others.

    It has a header line, and is separated by commas, semicolons or tabs. Without a column ``path``, one named
    ``filename``, ``file`` or ``image`` is it; without ``object``, one named ``class`` or ``label``. Paths are relative
    to it, with slashes or backslashes; an empty cell means unknown; rows keep the file's order.

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
    read = read_csv(file)
    columns, folder = read.cells, file.absolute().parent

    def place(row: int) -> str:
        return f"{file.name} line {read.lines[row]}"

    paths = []
    for row, path in enumerate(columns["path"]):
        if not path:
            raise TransferError(f"{place(row)}: the path is empty")
        try:
            paths.append(find_listed_file(folder, path))
        except TransferError as error:
            raise TransferError(f"{place(row)}: {error}") from None
    columns["path"] = paths
    table = make_table(columns, targets, name=file.stem, source=file.name, place=place)
    notes = [f"{file.name}: column {theirs!r} is the {ours}" for ours, theirs in read.renamed.items()]
    return replace(table, notes=tuple(notes))


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
