"""Corrections of labels: a CSV of decisions on single images, merged into a table; the images' folder stays as it is.

Each line is a decision. It is appended at once and never changed, so that a kill loses nothing and every decision can
be traced. An image is known by its path and the sha256 of its file.
"""

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock

from transfer.data.left_out import LeftOut
from transfer.data.shards.address import parse_address, read_member
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError, list_examples
from transfer.runtime.files import atomic_write, open_regular, open_text

ACTIONS = ("accept", "relabel", "exclude", "undo")


@dataclass(frozen=True)
class Correction:
    """A decision on an image, a line of the file."""

    path: str
    sha256: str
    old: str  # class before, "" if unknown
    new: str  # class after, "" if excluded
    when: str  # UTC, ISO 8601
    action: str  # of ACTIONS; undo takes back the image's last decision
    domain: str = ""  # that a person states; "" if nobody does


CORRECTED_IMAGES = "images"  # folder beside the file of `transfer serve`, with the images that it corrects
_ALL_COLUMNS = tuple(field.name for field in fields(Correction))
CORRECTION_HEADERS = (_ALL_COLUMNS[:-1], _ALL_COLUMNS)  # a file has the domain once a decision states one


class CorrectionFile:
    """The decisions in `path`, which need not exist yet.

    Several processes and threads can append: each append holds a lock, and is on the disk when it returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Correction]:
        """Return all decisions, the first first; none if there is no file. A last line that is cut off is ignored.

        Raises
        ------
        TransferError
            The file cannot be read, or is no file of corrections; names the line.
        """
        return self._read()[1]

    def _read(self) -> tuple[tuple[str, ...], list[Correction]]:
        """Return the header and the decisions."""
        if not self.path.is_file():
            return CORRECTION_HEADERS[0], []
        try:
            with open_text(self.path) as file:
                text = file.read()
            lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        except (OSError, csv.Error) as error:
            raise TransferError(f"cannot read the corrections {self.path}: {error}") from error
        header = tuple(lines[0]) if lines else ()
        if header not in CORRECTION_HEADERS:
            raise TransferError(
                f"{self.path} is no file of corrections: its first line is not {','.join(CORRECTION_HEADERS[0])}"
            )
        found = []
        for number, cells in enumerate(lines[1:], 2):
            if len(cells) != len(header) or cells[len(CORRECTION_HEADERS[0]) - 1] not in ACTIONS:
                raise TransferError(f"{self.path}, line {number}: no decision; repair or remove the line")
            found.append(Correction(*cells))
        return header, found

    def append(self, correction: Correction, seen: int | None = None) -> bool:
        """Append a decision; return False, and append none, if the image has not had `seen` decisions before.

        The first decision that states a domain adds this column to the file.

        Raises
        ------
        TransferError
            The file cannot be read or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock")):
                header, decisions = self._read()
                before = sum(each.path == correction.path for each in decisions)
                if seen is not None and seen != before:
                    return False
                if correction.domain and header != _ALL_COLUMNS:
                    header = _ALL_COLUMNS
                    with atomic_write(self.path) as temporary:
                        temporary.write_bytes(b"".join(map(_line, (header, *map(astuple, decisions)))))
                with self.path.open("ab+") as file:
                    _drop_cut_line(file)
                    if not file.tell():
                        file.write(_line(header))
                    file.write(_line(astuple(correction)[: len(header)]))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise TransferError(f"cannot write {self.path}: {error.strerror or error}") from error
        return True


def _drop_cut_line(file: BinaryIO) -> None:
    """Truncate `file` after its last line break: what follows was being written when the machine stopped."""
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _line(cells: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


def settle(corrections: list[Correction]) -> dict[str, Correction]:
    """Return the decision that holds for each path; paths whose decisions were all undone are left out.

    Examples
    --------
    >>> lines = [("accept", "a"), ("relabel", "b"), ("undo", "")]
    >>> settle([Correction("1.png", "", "a", new, "", action) for action, new in lines])["1.png"].action
    'accept'
    """
    history: dict[str, list[Correction]] = {}
    for each in corrections:
        of_image = history.setdefault(each.path, [])
        if each.action == "undo":
            del of_image[-1:]
        else:
            of_image.append(each)
    return {path: of_image[-1] for path, of_image in history.items() if of_image}


def apply_corrections(table: ImageTable, file: Path) -> ImageTable:
    """Return `table` with the decisions of `file`: other labels, domains that it states, no image that is excluded.

    An image is found by its path, or else, where the images were moved, by the bytes of its file and the old label. A
    decision on a file that was changed since is not applied; a note names these, and those without an image.

    Raises
    ------
    TransferError
        There is no such file, it is no file of corrections, or objects are not single classes.
    """
    if not file.is_file():
        raise TransferError(f"--corrections: no file {file}; transfer review writes one")
    if table.targets["object"].kind != "softmax":
        raise TransferError("--corrections are of images with one class each")
    decided = settle(CorrectionFile(file).read())
    names = [table.objects[k] if k >= 0 else "" for k in table.object.tolist()]
    domains = [table.domains[k] if k >= 0 else "" for k in table.domain.tolist()]
    found, lost = _find_rows(table, names, decided)
    excluded, changed, moved = np.zeros(len(table), bool), 0, 0
    for row, correction in found.items():
        excluded[row] = correction.action == "exclude"
        if correction.action == "relabel":
            changed += names[row] != correction.new
            names[row] = correction.new
            if correction.domain:
                moved += domains[row] != correction.domain
                domains[row] = correction.domain
    domain_note = f", {moved} domain{'s' * (moved != 1)} changed" if moved else ""
    without = int(excluded.sum())
    counts = f"{changed} label{'s' * (changed != 1)} changed, {without} image{'s' * (without != 1)} excluded"
    notes = [f"corrections of {file}: {counts}{domain_note}"]
    if lost:
        notes.append(f"{len(lost)} corrections of {file} are not applied: {list_examples(lost, 3)}")
    left_out = [
        LeftOut(str(table.paths[row]), "excluded by --corrections", str(file)) for row in np.flatnonzero(excluded)
    ]
    labelled = {str(table.paths[row]) for row in found if names[row]}
    targets = {"object": make_softmax_target(names)}
    if any(correction.domain for correction in found.values()):
        targets["domain"] = make_softmax_target(domains)
    table = replace(
        table,
        targets=table.targets | targets,
        notes=(*table.notes, *notes),
        choices=(*table.choices, *notes),
        left_out=(*table.left_out, *left_out),
        unlabelled=tuple(each for each in table.unlabelled if each.path not in labelled),
    )
    return table.take(~excluded)


def _find_rows(
    table: ImageTable, names: list[str], decided: Mapping[str, Correction]
) -> tuple[dict[int, Correction], list[str]]:
    """Return the decision on each row, and why others have no row."""
    rows = {str(path): row for row, path in enumerate(table.paths)}
    found, lost = {}, []
    elsewhere = [each for path, each in decided.items() if path not in rows]
    for path, each in decided.items():
        if path in rows and _hash(table, rows[path]) == each.sha256:
            found[rows[path]] = each
        elif path in rows:
            lost.append(f"{path} (the file was changed since)")
    by_content: dict[tuple[str, str], list[int]] = {}
    for row in range(len(table)) if elsewhere else ():
        if str(table.paths[row]) not in decided:
            by_content.setdefault((_hash(table, row), names[row]), []).append(row)
    for each in elsewhere:
        same = by_content.get((each.sha256, each.old), [])
        if same:
            found[same.pop(0)] = each
        else:
            lost.append(f"{each.path} (no such image)")
    return found, lost


def _hash(table: ImageTable, row: int) -> str:
    """Return the sha256 of an image's file in hex, an empty string if it cannot be read."""
    if table.sha256 is not None and table.sha256[row]:
        return str(table.sha256[row])
    path = str(table.paths[row])
    with contextlib.suppress(OSError, TransferError):
        member = parse_address(path)
        if member:
            return hashlib.sha256(read_member(member)).hexdigest()
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
