"""The output file of `transfer predict`, written row by row and resumed where it stopped.

Rows are appended to ``OUT.part``, which becomes ``OUT`` when the last image is predicted. ``OUT.resume`` has the
settings, and for each row what identifies its image and where the row ends. This is written before the row.
"""

import json
import logging
import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO, NamedTuple

from transfer.data.image_paths import identify_image
from transfer.errors import TransferError
from transfer.runtime.files import atomic_write, parse_json
from transfer.runtime.lock import PathLock

log = logging.getLogger(__name__)


class _Entry(NamedTuple):
    """What is recorded of a row."""

    path: bytes  # hash of the image's path
    version: bytes  # hash of its size and time of change
    batch: int  # images that the network computed together
    bad: bool  # whether the image could not be read
    end: int  # bytes of the file up to the end of the row
    checksum: int  # CRC-32 of the row


_ENTRY = Struct("<8s8sH?QI")


class PredictionFile:
    """Rows of predictions for a list of images, in its order; use it as a context manager.

    Parameters
    ----------
    out : Path
        Appears when :meth:`finish` is called.
    settings : dict
        Plain JSON values that decide the rows; messages have their names.
    batch_size : int
        Images of each batch but the last.
    resume : bool
        Continue after the rows that are there, also those of a finished file, whose record is then retained.

    Attributes
    ----------
    rows : int
        Rows that are there.
    bad : int
        Those of them whose image could not be read.

    Raises
    ------
    TransferError
        The rows that are there were made with other settings, another process is writing, or the folder cannot be
        written.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, batch_size: int, resume: bool) -> None:
        self.out, self.part, self.record = out, out.with_name(f"{out.name}.part"), out.with_name(f"{out.name}.resume")
        self.rows = self.bad = 0
        self._head = (json.dumps(settings) + "\n").encode()
        self._batch_size, self._resume = batch_size, resume
        self._seen = self._end = 0  # images of the list so far; bytes of the rows
        self._coming: deque[tuple[int, list[tuple[bytes, bytes]]]] = deque()  # of each batch: its size, its images
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        with self._report_errors():
            out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = PathLock(out, out.with_name(f".{out.name}.lock"))
        try:
            with self._report_errors():
                if resume and self.record.is_file():
                    self._load(settings)
                elif self.part.is_file() and self.part.stat().st_size:
                    log.info("%s, which an earlier command left unfinished, is replaced", self.part)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, kind: type | None, *raised: object) -> None:
        if self._files:
            for file in self._files:
                with suppress(OSError):  # what a full disk did not take is written again
                    file.close()
            if kind and not self.rows:
                self.part.unlink(missing_ok=True)
                self.record.unlink(missing_ok=True)
            elif kind:
                log.info("%s has the first %s rows: --resume continues there", self.part, f"{self.rows:,}")
        self._lock.release()

    def count_answered(self, paths: Sequence[str]) -> int:
        """Return how many of the next images of the list have a row, the first of them.

        Raises
        ------
        TransferError
            These are other images than those that the rows are of, or there are fewer.
        """
        first, self._seen = self._seen, self._seen + len(paths)
        images = [identify_image(path) for path in paths]
        entries = self._read_entries(first, min(len(paths), self.rows - first))
        for row, (path, image, entry) in enumerate(zip(paths, images, entries, strict=False), first + 1):
            if image[0] != entry.path:
                raise TransferError(
                    f"--resume: row {row:,} of {self.part} is of another image than {path}: give the same images in "
                    "the same order, or leave out --resume to start again"
                )
            if image[1] != entry.version:
                raise TransferError(
                    f"--resume: {path} was changed since row {row:,} of {self.part} was written: restore it, or leave "
                    "out --resume to start again"
                )
        if len(paths) < self._batch_size:  # the last ones
            self._refuse_fewer()
        same = all(entry.batch == len(paths) for entry in entries)  # another batch may give other last digits
        answered = len(entries) if same else 0
        if answered < len(entries):
            with self._report_errors():
                self._truncate(first + answered)
        if answered < len(paths):
            self._coming.append((len(paths), images[answered:]))
        return answered

    def write(self, lines: Sequence[str], bad: Sequence[bool], head: str = "") -> None:
        """Append the rows of the next batch that :meth:`count_answered` found without; a new file starts with `head`.

        `bad` says of each row whether its image could not be read.
        """
        size, images = self._coming.popleft()
        rows = [line.encode("utf-8", "surrogateescape") for line in lines]
        if not self.rows:
            rows[0] = head.encode("utf-8", "surrogateescape") + rows[0]
        entries, end = [], self._end
        for row, (path, version), is_bad in zip(rows, images, bad, strict=True):
            end += len(row)
            entries.append(_ENTRY.pack(*_Entry(path, version, size, is_bad, end, zlib.crc32(row))))
        with self._report_errors():
            self._files = self._files or self._create()
            for file, content in zip(self._files, (entries, rows), strict=True):
                file.seek(0, os.SEEK_END)
                file.write(b"".join(content))
                file.flush()
        self.rows, self.bad, self._end = self.rows + len(rows), self.bad + sum(bad), end

    def finish(self) -> None:
        """Let the file appear under its name, whole and on disk."""
        self._refuse_fewer()
        with self._report_errors():
            if self._files:
                os.fsync(self._files[1].fileno())
                for file in self._files:
                    file.close()
                self._files = None
            self.part.replace(self.out)
            if not self._resume:
                self.record.unlink(missing_ok=True)

    def _refuse_fewer(self) -> None:
        if self.rows > self._seen:
            raise TransferError(
                f"--resume: {self.part} has {self.rows:,} rows, but only {self._seen:,} images are given: give the "
                "same images in the same order, or leave out --resume to start again"
            )

    def _create(self) -> tuple[BinaryIO, BinaryIO]:
        """Return new files for record and rows."""
        self.part.unlink(missing_ok=True)
        with atomic_write(self.record) as temporary:
            temporary.write_bytes(self._head)
        return self.record.open("r+b"), self.part.open("w+b")

    def _load(self, settings: dict[str, Any]) -> None:
        """Open the files of an unfinished or finished command; what is half-written or damaged is cut off."""
        self._check_settings(settings)
        if not self.part.is_file():
            if not self.out.is_file():
                return
            shutil.copyfile(self.out, self.part)
        self._files = self.record.open("r+b"), self.part.open("r+b")
        record, rows = self._files
        record.seek(len(self._head))
        end = 0
        while len(packed := record.read(_ENTRY.size)) == _ENTRY.size:
            entry = _Entry(*_ENTRY.unpack(packed))
            row = rows.read(entry.end - end) if entry.end > end else b""
            if len(row) != entry.end - end or zlib.crc32(row) != entry.checksum:
                break
            self.rows, self.bad, end = self.rows + 1, self.bad + entry.bad, entry.end
        self._truncate(self.rows)
        log.info("%s has %s rows already", self.part, f"{self.rows:,}")

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Raise a TransferError unless the record has the same settings."""
        with self.record.open("rb") as file:
            self._head = file.readline(1 << 16)
        try:
            before = parse_json(self._head)
            if not isinstance(before, dict):
                raise ValueError("no settings")
        except ValueError:
            raise TransferError(f"{self.record} is damaged: leave out --resume to start again") from None
        if differ := [name for name in settings if before.get(name) != settings[name]]:
            raise TransferError(
                f"--resume: {self.part} was made with another {', '.join(differ)}: use what it was started with, or "
                "leave out --resume to start again"
            )

    def _read_entries(self, first: int, count: int) -> list[_Entry]:
        """Return what is recorded of `count` rows from `first` on."""
        if not self._files or count <= 0:
            return []
        self._files[0].seek(len(self._head) + first * _ENTRY.size)
        return [_Entry(*values) for values in _ENTRY.iter_unpack(self._files[0].read(count * _ENTRY.size))]

    def _truncate(self, rows: int) -> None:
        """Remove all rows but the first `rows`."""
        assert self._files
        dropped = self._read_entries(rows, self.rows - rows)
        last = self._read_entries(rows - 1, 1) if rows else []
        self._end = last[0].end if last else 0
        self.rows, self.bad = rows, self.bad - sum(entry.bad for entry in dropped)
        for file, end in zip(self._files, (len(self._head) + rows * _ENTRY.size, self._end), strict=True):
            file.truncate(end)

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransferError(f"cannot write {self.out}: {error.strerror or error}") from error
