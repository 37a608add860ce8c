"""Read the cells of a CSV table of images: its encoding, its separator, and the names of its columns."""

import csv
import io
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.data.left_out import LeftOut
from transfer.errors import TransferError, did_you_mean
from transfer.runtime.files import open_regular

MANIFEST_COLUMNS = ("path", "object", "domain", "split", "group")  # columns with a fixed meaning
CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
SEPARATORS = (",", ";", "\t", "|", " ")
OTHER_NAMES = {
    "path": (
        ("filename", "file", "image"),
        ("filepath", "imageid", "imagename", "imagepath", "imagefile", "imgname", "imgpath", "imgid", "img"),
    ),
    "object": (("class", "label"), ("category", "target", "classname", "labelname", "categoryname")),
}
"""Further names of columns, without what separates their words. Names count only if no earlier ones are there."""
_HEADER_BYTES = 1 << 20
_WRITTEN_HERE = re.compile(rb"path,[^\r\n]*\bsha256\b")  # header of images.csv of a run
_EXCEL_SEPARATOR = re.compile(r"sep=(.)\r?\n")  # a first line that Excel reads
_QUOTES = ('"', "'")


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
    notes : tuple of str
        The encoding if it is a guess, and which columns are used under another name.
    """

    cells: dict[str, list[str]]
    lines: list[int]
    ragged: list[LeftOut]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Dialect:
    separator: str
    quote: str
    names: list[str]  # of the columns


def read_csv(file: Path, targets: Sequence[str] = ()) -> CsvColumns:
    """Read a CSV file with a header, in UTF-8, UTF-16 or Windows-1252, and separated by one of `SEPARATORS`.

    A column that `targets` name (``NAME`` or ``NAME:KIND``) is not the object; with them, there may be no object.

    Raises
    ------
    TransferError
        The file cannot be read, has no row, no column for the path or the object, or two that could be it.
    """
    rows: list[list[str]] = []
    ragged: list[LeftOut] = []
    lines: list[int] = []
    try:
        with open_regular(file) as stream:
            text, notes = _decode(file, stream.read())
        dialect, body, skipped = _find_dialect(text)
        header, renamed = _name_columns(file, dialect.names, targets)
        path = header.index("path")
        reader = csv.reader(
            io.StringIO(body, newline=""),
            delimiter=dialect.separator,
            quotechar=dialect.quote,
            skipinitialspace=True,
            strict=True,
        )
        for row in itertools.islice(reader, 1, None):
            row = [cell.strip() for cell in row]
            if not any(row):
                continue
            line = reader.line_num + skipped
            if len(row) != len(header):
                reason = f"{len(row)} cell{'s' * (len(row) > 1)}, but the header has {len(header)}"
                ragged.append(LeftOut(row[path] if path < len(row) else "", reason, place_of(file, line)))
                continue
            rows.append(row)
            lines.append(line)
    except (OSError, csv.Error) as error:
        raise TransferError(f"cannot read {file} as a CSV: {error}") from error
    if not rows and not ragged:
        raise TransferError(f"no image in {file}: it has a header and no rows")
    cells = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    return CsvColumns(cells, lines, ragged, (*notes, *renamed))


def place_of(file: Path, line: int) -> str:
    """Return where a row is listed, for messages: ``list.csv line 7``."""
    return f"{file.name} line {line}"


def read_header(file: Path) -> tuple[str, ...]:
    """Return the column names of a CSV file, each that has a fixed meaning as in `MANIFEST_COLUMNS`.

    A name that has a fixed meaning under another name stays as it is. There are none if it is no readable CSV file.
    """
    if file.suffix.lower() not in CSV_SUFFIXES:
        return ()
    try:
        with open_regular(file) as stream:
            raw = stream.read(_HEADER_BYTES)
        return tuple(_lower_fixed(_find_dialect(raw.decode(_guess_encoding(raw), "replace"))[0].names))
    except (OSError, csv.Error):
        return ()


def find_column(names: Sequence[str], meaning: str) -> list[int]:
    """Return the places of the columns that could be the ``path`` or the ``object``: of several names the likeliest.

    Examples
    --------
    >>> find_column(["image_id", "File Name", "target"], "path"), find_column(["Category"], "object")
    ([1], [0])
    """
    plain = [re.sub(r"[\s_-]+", "", name.lower()) for name in names]
    for known in ((meaning,), *OTHER_NAMES[meaning]):
        if found := [place for place, name in enumerate(plain) if name in known]:
            return found
    return []


def _guess_encoding(raw: bytes) -> str:
    """Return UTF-16 if a byte order mark or NULs in the first two letters say so, else UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"  # drops its mark
    if len(raw) > 3 and 0 in raw[:2] and raw[0] != raw[1]:
        return "utf-16-be" if raw[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def _decode(file: Path, raw: bytes) -> tuple[str, list[str]]:
    """Return the text of a file, and a note if its encoding is a guess.

    File names that are no text stand as their bytes in images.csv of a run, which is UTF-8 otherwise.
    """
    encoding = _guess_encoding(raw)
    if _WRITTEN_HERE.match(raw):
        return raw.decode("utf-8", "surrogateescape"), []
    try:
        return raw.decode(encoding), []
    except UnicodeDecodeError:
        if encoding == "utf-8-sig":
            try:
                return raw.decode("cp1252"), [f"{file.name} is not UTF-8: read as Windows-1252 (Latin-1)"]
            except UnicodeDecodeError:
                pass
    raise TransferError(f"cannot read {file}: it is neither UTF-8 nor UTF-16 nor Windows-1252: save it as UTF-8")


def _find_dialect(text: str) -> tuple[_Dialect, str, int]:
    """Return the dialect whose header names path and object (else the most columns), the text from the header on, and
    the number of lines before it.
    """
    separators: Sequence[str] = SEPARATORS
    skipped = 0
    if excel := _EXCEL_SEPARATOR.match(text):
        separators, skipped, text = [excel[1]], 1, text[excel.end() :]
    body = text.lstrip("\r\n")
    skipped += len(text[: len(text) - len(body)].splitlines())
    found = []
    for quote, separator in itertools.product(_QUOTES, separators):
        line = io.StringIO(body[:_HEADER_BYTES], newline="")
        try:
            row = next(csv.reader(line, delimiter=separator, quotechar=quote, skipinitialspace=True), [])
        except csv.Error:  # a field too large, where a quote is none
            row = []
        names = [cell.strip() for cell in row]
        if separator == " " and not all(map(_is_known, names)):
            names = []  # a sentence
        found.append(_Dialect(separator, quote, names))
    known = [sum(bool(find_column(dialect.names, name)) for name in OTHER_NAMES) for dialect in found]
    best = max(range(len(found)), key=lambda i: (known[i], len(found[i].names) if not known[i] else 0, -i))
    return found[best], body, skipped


def _is_known(name: str) -> bool:
    return name.lower() in MANIFEST_COLUMNS or any(find_column([name], meaning) for meaning in OTHER_NAMES)


def _lower_fixed(header: Sequence[str]) -> list[str]:
    return [name.lower() if name.lower() in MANIFEST_COLUMNS else name for name in header]


def _name_columns(file: Path, header: Sequence[str], targets: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the header with the fixed names of `MANIFEST_COLUMNS`, and notes on other names."""
    names = _lower_fixed(header)
    twice = sorted({c for c in names if names.count(c) > 1})
    if twice:
        raise TransferError(f"{file} has the column {twice[0]!r} more than once")
    notes = []
    further = {*targets, *(spec.rpartition(":")[0] for spec in targets)} - {*MANIFEST_COLUMNS}
    for needed, others in OTHER_NAMES.items():
        found = find_column(["" if name in further else name for name in names], needed)
        if len(found) > 1:
            which = " and ".join(repr(names[place]) for place in found)
            raise TransferError(f"{file} has the columns {which}, either of which could be the {needed}: rename one")
        if not found and needed == "object" and targets:
            continue
        if not found:
            instead = "; or name the columns to predict by --targets" if needed == "object" else ""
            raise TransferError(
                f"{file} has no column {needed!r}{did_you_mean(needed, names)}: a manifest has "
                f"path,object[,domain][,split][,group]; {needed} may also be called {' or '.join(sum(others, ()))}"
                f"{instead}"
            )
        if names[found[0]] != needed:
            notes.append(f"{file.name}: column {names[found[0]]!r} is the {needed}")
            names[found[0]] = needed
    return names, notes
