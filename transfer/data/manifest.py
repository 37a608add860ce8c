"""Read a CSV manifest into a table: one line per image, with further columns to predict."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.csv_columns import (
    MANIFEST_COLUMNS,
    OTHER_NAMES,
    CsvColumns,
    find_listed_file,
    place_of,
    read_csv,
    read_header,
)
from transfer.data.left_out import LeftOut
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.data.target_columns import check_kind, read_target
from transfer.errors import TransferError, did_you_mean, list_examples

NO_OBJECT = "no object is given, so it does not train the object head"
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
        if read.ragged:
            return f"{read.ragged[0].where}: {read.ragged[0].reason}"
        find_listed_file(file.absolute().parent, read.cells["path"][0])
    except TransferError as error:
        return str(error)
    return ""


def read_manifest(file: Path, targets: Sequence[str] = (), *, skip_bad: bool = False) -> ImageTable:
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
    skip_bad : bool
        Leave out rows without a file, or with another number of cells than the header.

    Raises
    ------
    TransferError
        A missing file or column, or an invalid cell; names the line.
    """
    read = read_csv(file)
    found, left_out = _find_files(file, read)
    if left_out and (not skip_bad or not found):
        first = min(left_out, key=lambda each: int(each.where.rpartition(" ")[2]))
        remedy = "all rows are bad" if skip_bad else "repair the row, or skip such rows with --on-bad-image skip"
        raise TransferError(f"{first.where}: {first.reason} ({remedy})")
    folder = file.absolute().parent
    left_out = [each._replace(reason=each.reason.replace(str(folder / each.path), "at this path")) for each in left_out]
    columns = {name: [cells[row] for row in found] for name, cells in read.cells.items()} | {"path": [*found.values()]}
    places = [place_of(file, read.lines[row]) for row in found]
    table = make_table(columns, targets, name=file.stem, source=file.name, place=places.__getitem__)
    notes = [f"{file.name}: column {theirs!r} is the {ours}" for ours, theirs in read.renamed.items()]
    if left_out:
        named = list_examples([f"{each.where} ({each.reason})" for each in left_out], 3)
        notes.append(f"{len(left_out)} row{'s' * (len(left_out) > 1)} skipped: {named}")
    return replace(table, notes=tuple(notes), left_out=tuple(left_out))


def _find_files(file: Path, read: CsvColumns) -> tuple[dict[int, str], list[LeftOut]]:
    """Return the file of each row that has one, by row, and the other rows."""
    found, left_out = {}, [*read.ragged]
    for row, path in enumerate(read.cells["path"]):
        try:
            if not path:
                raise TransferError("the path is empty")
            found[row] = find_listed_file(file.absolute().parent, path)
        except TransferError as error:
            left_out.append(LeftOut(path, str(error), place_of(file, read.lines[row])))
    return found, left_out


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
        unlabelled=tuple(
            LeftOut(path, NO_OBJECT, place(row))
            for row, (path, name) in enumerate(zip(columns["path"], columns["object"], strict=True))
            if not name
        ),
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
