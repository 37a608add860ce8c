"""Read a CSV manifest into a table: one line per image, with further columns to predict."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfer.data.label_sets.cells import MULTILABEL, SEPARATORS_OF_LABELS, describe_label_sets, find_separator
from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.left_out import LeftOut
from transfer.data.manifests.csv_columns import (
    MANIFEST_COLUMNS,
    CsvColumns,
    find_column,
    place_of,
    read_csv,
    read_header,
)
from transfer.data.manifests.listed_files import ListedFiles
from transfer.data.split_names import SPLITS, describe_splits, read_splits
from transfer.data.table import DEFAULT_DOMAIN, ImageTable, make_softmax_target
from transfer.data.target_columns import check_kind, read_target
from transfer.errors import MissingColumn, TransferError, did_you_mean, list_examples

NO_OBJECT = "no object is given, so it does not train the object head"
NO_LABELS = "no label is given"  # where images have no object but other labels
_TRIED_PATHS = 100  # rows of a table that may not be one of images


def is_manifest(file: Path) -> bool:
    """Return whether `file` is a CSV file with a ``path`` column; a ``.txt`` also needs one for the object."""
    names = read_header(file)
    return "path" in names and (file.suffix.lower() != ".txt" or bool(find_column(names, "object")))


def is_similar_to_manifest(file: Path) -> bool:
    """Return whether `file` is a CSV file with columns that other tools use for path and object."""
    names = read_header(file)
    return bool(find_column(names, "path")) and bool(find_column(names, "object"))


def find_manifest_fault(file: Path) -> str:
    """Return why `file` cannot be read as a manifest; an empty string if it can, and most of its first images exist."""
    try:
        read = read_csv(file)
        paths = read.cells["path"]
        if read.ragged:
            return f"{read.ragged[0].where}: {read.ragged[0].reason}"
    except TransferError as error:
        return str(error)
    files, faults = ListedFiles([file.absolute().parent]), []
    tried = [path for path in paths[:_TRIED_PATHS] if path]
    for path in tried:
        try:
            files.find(path)
        except TransferError as error:
            faults.append(str(error))
    if not tried:
        return "it names no file"
    return faults[0] if 2 * len(faults) >= len(tried) else ""


def read_manifest(file: Path, targets: Sequence[str] = (), *, skip_bad: bool = False) -> ImageTable:
    """Read a CSV manifest with columns ``path,object[,domain][,split][,group]`` and any others.

    It has a header line, and is separated by commas, semicolons, tabs, bars or spaces. Without a column ``path``, one
    named ``filename``, ``file`` or ``image`` is it, or another of `transfer.data.manifests.csv_columns.OTHER_NAMES`;
    without ``object``, one named ``class`` or ``label``. Without ``split``, it is the one column that holds nothing but
    names of splits, or else the level of the paths' folders that does. Paths are relative to the manifest, see
    `transfer.data.manifests.listed_files`; an empty cell means unknown; rows keep the file's order.

    Parameters
    ----------
    targets : sequence of str
        Further columns to predict: ``NAME`` or ``NAME:KIND``, a kind of head such as ``softmax`` or ``regression``.
        Without a kind, a column of 0/1, yes/no or true/false is binary, one of other numbers regression, one with a
        ``|`` in a cell multilabel, any other softmax. With one that has classes, there need not be an object.
    skip_bad : bool
        Leave out rows without a file, or with another number of cells than the header.

    Raises
    ------
    TransferError
        A missing file or column, or an invalid cell; names the line.
    """
    return read_manifests({file: ""}, targets, name=file.stem, skip_bad=skip_bad)


def read_manifests(
    files: Mapping[Path, str],
    targets: Sequence[str] = (),
    folders: Sequence[Path] = (),
    *,
    name: str,
    skip_bad: bool = False,
) -> ImageTable:
    """Read at least one CSV manifest into one table; its rows are of the split that is given beside the file, if any.

    `folders` are further ones in which relative paths may start. All else is as for :func:`read_manifest`.
    """
    columns: dict[str, list[str]] = {}
    places: list[str] = []
    left_out: list[LeftOut] = []
    choices: list[str] = []
    for file, split in files.items():
        read = read_csv(file, targets)
        listed = ListedFiles([file.absolute().parent, *folders])
        found, bad = _find_files(file, read, listed, skip_bad)
        cells = {column: [values[row] for row in found] for column, values in read.cells.items()}
        cells["path"] = [*found.values()]
        if split:
            cells.setdefault("split", [split] * len(found))
        for column in {**columns, **cells}:
            columns[column] = columns.get(column, [""] * len(places)) + cells.get(column, [""] * len(found))
        places += [place_of(file, read.lines[row]) for row in found]
        left_out += bad
        choices += [*read.notes, *(f"{file.name}: {note}" for note in listed.describe())]
    source = ", ".join(file.name for file in files)
    choices += _name_split_column(columns, targets, source) or _take_path_splits(columns, next(iter(files)), source)
    table = make_table(columns, targets, name=name, source=source, place=places.__getitem__)
    choices += table.choices
    notes = [*choices]
    if left_out:
        named = list_examples([f"{each.where} ({each.reason})" for each in left_out], 3)
        notes.append(f"{len(left_out)} row{'s' * (len(left_out) > 1)} skipped: {named}")
    return replace(table, notes=tuple(notes), choices=tuple(choices), left_out=tuple(left_out))


def _find_files(
    file: Path, read: CsvColumns, listed: ListedFiles, skip_bad: bool
) -> tuple[dict[int, str], list[LeftOut]]:
    """Return the file of each row that has one, by row, and the other rows.

    Raises
    ------
    TransferError
        A row without a file, unless bad rows are skipped and there are others.
    """
    found, left_out = {}, [*read.ragged]
    for row, path in enumerate(read.cells["path"]):
        try:
            if not path:
                raise TransferError("the path is empty")
            found[row] = listed.find(path)
        except TransferError as error:
            left_out.append(LeftOut(path, str(error), place_of(file, read.lines[row])))
    if left_out and (not skip_bad or not found):
        first = min(left_out, key=lambda each: int(each.where.rpartition(" ")[2]))
        remedy = "all rows are bad" if skip_bad else "repair the row, or skip such rows with --on-bad-image skip"
        raise TransferError(f"{first.where}: {first.reason} ({remedy})")
    folder = file.absolute().parent
    return found, [
        each._replace(reason=each.reason.replace(str(folder / each.path), "at this path")) for each in left_out
    ]


def _name_split_column(columns: dict[str, list[str]], targets: Sequence[str], source: str) -> list[str]:
    """Call a column ``split`` that holds nothing but names of splits; return a note on it.

    Raises
    ------
    TransferError
        There are several.
    """
    requested = {*targets, *(spec.rpartition(":")[0] for spec in targets), *MANIFEST_COLUMNS}
    if "split" in columns:
        return []
    meanings = {
        name: {*read_splits({*cells} - {""}).values()} for name, cells in columns.items() if name not in requested
    }
    found = [name for name, splits in meanings.items() if splits > {"train"} and "" not in splits]
    if not found:
        return []
    if len(found) > 1:
        raise TransferError(f"{source} has the columns {' and '.join(map(repr, found))} of splits: call one 'split'")
    columns["split"] = columns[found[0]]
    return [f"{source}: column {found[0]!r} is the split, as it names nothing else"]


def _take_path_splits(columns: dict[str, list[str]], file: Path, source: str) -> list[str]:
    """Add a column ``split`` from a level of folders that are all splits, train among them; return a note on it."""
    if "split" in columns:
        return []
    folder = file.absolute().parent
    levels = [Path(os.path.relpath(path, folder)).parts[:-1] for path in columns["path"]]
    for i in range(min(map(len, levels))):
        meanings = read_splits(dict.fromkeys(level[i] for level in levels))
        if {*meanings.values()} > {"train"} and all(meanings.values()):
            columns["split"] = [meanings[level[i]] for level in levels]
            how = describe_splits(meanings) or ", ".join(meanings)
            return [f"{source}: splits by the folders of its paths: {how} (a column split would have precedence)"]
    return []


def make_table(
    columns: dict[str, list[str]], targets: Sequence[str], *, name: str, source: str, place: Callable[[int], str]
) -> ImageTable:
    """Return the table of `columns`: lists of cells by name; ``path`` and ``object``, or `targets`, are required.

    `targets` and errors are as for :func:`read_manifest`. In errors, `source` names the origin of the columns, and
    `place` describes where a row stands.
    """
    n = len(columns["path"])
    unknown = [""] * n
    splits = columns.get("split", unknown)
    meanings = read_splits(dict.fromkeys(name for name in splits if name))
    if wrong := next((name for name, split in meanings.items() if not split), ""):
        raise TransferError(
            f"{place(splits.index(wrong))}: unknown split {wrong!r}{did_you_mean(wrong, SPLITS, limit=1)}; "
            f"known: {', '.join(SPLITS)}"
        )
    how = describe_splits(meanings)
    choices = [f"{source}: of the splits, {how}"] if how else []
    domains, objects = columns.get("domain", unknown), columns.get("object", unknown)
    extra = {}
    for spec in targets:
        column, kind = _parse(spec, columns, source)
        target = extra[column] = read_target(column, kind, columns[column], place)
        if target.kind == MULTILABEL:
            choices.append(describe_label_sets(column, target, f"separated by {find_separator(columns[column])!r}"))
    if "object" not in columns and not any(target.classes for target in extra.values()):
        raise TransferError(f"{source} has neither a column 'object' nor, by --targets, another one with classes")
    if several := sum(SEPARATORS_OF_LABELS[0] in name for name in objects):
        example = next(name for name in objects if SEPARATORS_OF_LABELS[0] in name)
        choices.append(
            f"{source}: {several:,} objects contain '|' ({example}), and each is read as one class: several labels an "
            "image stand in a column of another name, with --targets NAME"
        )
    table = ImageTable(
        paths=np.array(columns["path"]),
        targets={
            "object": make_softmax_target(objects),
            "domain": make_softmax_target(domains if any(domains) else [DEFAULT_DOMAIN] * n),
            **extra,
        },
        split=np.array([meanings.get(name, "") for name in splits]),
        group=np.array(columns.get("group", unknown)),
        name=name,
        notes=tuple(choices),
        choices=tuple(choices),
    )
    labelled = table.object >= 0 if table.objects else use_label_sets(table).object >= 0
    reason = NO_OBJECT if table.objects else NO_LABELS
    unlabelled = (LeftOut(columns["path"][row], reason, place(row)) for row in np.flatnonzero(~labelled).tolist())
    return replace(table, unlabelled=tuple(unlabelled))


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
        raise MissingColumn(f"no column {name!r} in {source}{did_you_mean(name, others)}: it has {has}", [name])
    return name, check_kind(name, kind) if kind else None
