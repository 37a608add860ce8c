"""Rows of one shape and type under one key: found, read, written."""

import contextlib
import json
import logging
import math
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from transfer.disk_cache.folder import files_in, key_of, record_of, remove
from transfer.disk_cache.segment import ENTRY, SEAL, Damaged, Segment, find, packed, seal_of, write_all
from transfer.errors import TransferError
from transfer.runtime.files import write_json

if TYPE_CHECKING:
    from transfer.disk_cache.store import Store

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 << 20  # all that a killed run can lose
FORMAT = 1
_MAPPED = 64 << 20  # bytes of files that may stay mapped once read; it counts as memory, though it is the system's


class CannotKeep(TransferError):
    """Rows cannot be written to the cache; who computed them can go on without."""


class Shelf:
    """Rows of one shape and type under one key. Make it through :meth:`Store.shelf`."""

    def __init__(
        self, store: "Store", kind: str, about: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.store, self.shape, self.dtype = store, shape, dtype
        self.row_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not self.row_bytes:
            raise ValueError(f"rows of {shape} {dtype} cannot be kept")
        record = {"format": FORMAT, "kind": kind, "about": dict(about), "row_bytes": self.row_bytes}
        record |= {"shape": shape, "dtype": np.lib.format.dtype_to_descr(dtype)}
        self.record = json.loads(json.dumps(record, allow_nan=False))
        self.key = key_of(self.record)
        self.folder = store.root / kind / self.key[:32]
        size = min(SEGMENT_BYTES, store.limit // 4)
        self.segment_rows = max(1, size // (self.row_bytes + ENTRY.itemsize))
        self.written: set[Path] = set()
        self._segments: dict[Path, Segment] = {}
        self._refused: set[Path] = set()

    @property
    def in_use(self) -> set[Path]:
        """The segments that are open here or were written here."""
        return self.written | self._segments.keys()

    def locate(self, digests: np.ndarray | Sequence[str]) -> "Located":
        """Find the rows of `digests`, sha256 in hex, shape (N,), as they are kept now.

        A row found for the first time is checked. Where that fails, its segment is removed, with a warning, and
        all that was in it is missing.
        """
        wanted = packed(digests)
        while True:
            segments, refused = self._opened(), len(self._refused)
            number, row = find(wanted, segments)
            served = np.unique(number[number >= 0])
            size = int((number >= 0).sum()) * self.row_bytes
            how = {"unit": "B", "unit_scale": True, "disable": None, "delay": 2, "leave": False}
            with tqdm(total=size, desc="checking the cache", **how) as bar:
                for n in served:
                    try:
                        segments[n].check(row[number == n], bar)
                    except Damaged as damage:
                        self._refuse(segments[n].path, damage)
            if len(self._refused) == refused:
                break
        for n in served:
            with contextlib.suppress(OSError):
                os.utime(segments[n].path)
        return Located(self, segments, number, row)

    @contextlib.contextmanager
    def writing(self, rows: int | None = None) -> Iterator["Writer"]:
        """Yield a writer; what was appended is kept at the end, whatever ends it.

        Parameters
        ----------
        rows : int, optional
            How many will come, where known: so many that can never fit are refused at once.

        Raises
        ------
        CannotKeep
            They cannot be written. What was complete before stays.
        """
        if rows:
            seals = -(-rows // self.segment_rows) * SEAL
            self.store.make_room(rows * (self.row_bytes + ENTRY.itemsize) + seals)
        writer = Writer(self)
        try:
            yield writer
            writer.commit()
        except BaseException:
            with contextlib.suppress(CannotKeep):
                writer.commit()
            raise
        finally:
            writer.abandon()

    def describe(self) -> None:
        """See to it that the folder is there and says what it holds."""
        if record_of(self.folder) is None:
            write_json(self.folder / "about.json", self.record)

    def _opened(self) -> list["Segment"]:
        """Return the segments that are there now, in an order that all processes agree on."""
        there = {path for _, _, path in files_in(self.folder, "*.rows")} - self._refused
        opened = {}
        for path in sorted(there):
            try:
                opened[path] = self._segments.get(path) or Segment(path, self.key, self.row_bytes)
            except Damaged as damage:
                self._refuse(path, damage)
            except OSError:
                pass  # removed by another process, or not ours to read
        self._segments = opened
        return list(opened.values())

    def _refuse(self, path: Path, damage: Damaged) -> None:
        self._refused.add(path)  # should it not let itself be removed
        self._segments.pop(path, None)
        remove(path)
        log.warning("%s %s: dropped, what was in it is computed anew", path, damage)


class Located:
    """Where rows are; they stay readable whatever is removed meanwhile.

    Attributes
    ----------
    have : ndarray of bool, shape (N,)
        Which are kept.
    """

    def __init__(self, shelf: Shelf, segments: list["Segment"], number: np.ndarray, row: np.ndarray) -> None:
        self.have = number >= 0
        self._shelf, self._segments, self._number, self._row = shelf, segments, number, row
        self._large = sum(segment.rows.nbytes for segment in segments) > _MAPPED

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of `rows`, indices of what was located (M,), in their order: (M, ...).

        Raises
        ------
        KeyError
            One is not kept.
        """
        number, row = self._number[rows], self._row[rows]
        if (number < 0).any():
            raise KeyError(f"row {np.asarray(rows)[number < 0][0]} is not kept")
        used = np.unique(number)
        if len(used) == 1:
            out = self._segments[used[0]].rows.take(row)
        else:
            out = np.empty(len(row), f"V{self._shelf.row_bytes}")
            for n in used:
                here = number == n
                out[here] = self._segments[n].rows[row[here]]
        if self._large:  # a row's page brings up to 2 MiB around it with it
            for n in used:
                self._segments[n].release()
        return out.view(self._shelf.dtype).reshape(len(row), *self._shelf.shape)


class Writer:
    """Appends rows to a shelf. Make it through :meth:`Shelf.writing`."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._part: Path | None = None
        self._entries: list[np.ndarray] = []
        self._rows = 0

    def append(self, digests: np.ndarray | Sequence[str], values: np.ndarray) -> None:
        """Write rows `values` (n, ...) of the images of `digests` (n,), sha256 in hex.

        Raises
        ------
        CannotKeep
            They cannot be written.
        """
        names, values, shelf = packed(digests), np.ascontiguousarray(values), self._shelf
        if values.dtype != shelf.dtype or values.shape != (len(names), *shelf.shape):
            raise ValueError(f"{len(names)} rows of {shelf.shape} {shelf.dtype}, not {values.shape} {values.dtype}")
        raw = values.reshape(len(names), math.prod(shelf.shape)).view(np.uint8)
        while len(names):
            fit = shelf.segment_rows - self._rows
            self._write(names[:fit], raw[:fit])
            names, raw = names[fit:], raw[fit:]
            if self._rows == shelf.segment_rows:
                self.commit()

    def commit(self) -> None:
        """Make a segment of what was appended since the last one. Broken off, it can be called again."""
        if self._part is None or not self._rows:
            return
        entries = np.concatenate(self._entries)[: self._rows].tobytes()
        with self._or_nothing():
            self._shelf.store.make_room(self._rows * self._shelf.row_bytes + len(entries) + SEAL)
            with self._part.open("rb+", buffering=0) as file:
                file.seek(self._rows * self._shelf.row_bytes)
                write_all(file, entries + seal_of(self._shelf.key, entries))
                file.truncate()
                os.fsync(file.fileno())
            self._shelf.describe()
            path = self._part.with_name(self._part.name[1:]).with_suffix(".rows")
            self._shelf.written.add(path)
            self._part.replace(path)
        self._part, self._entries, self._rows = None, [], 0

    def abandon(self) -> None:
        """Forget what was appended since the last segment."""
        if self._part is not None:
            remove(self._part)
        self._part, self._entries, self._rows = None, [], 0

    def _write(self, names: np.ndarray, raw: np.ndarray) -> None:
        with self._or_nothing():
            part = self._part or self._begin()
            with part.open("rb+", buffering=0) as file:  # a buffer, broken off, could be flushed too late
                file.seek(self._rows * self._shelf.row_bytes)
                write_all(file, raw.data)
        entries = np.empty(len(names), ENTRY)
        entries["digest"], entries["crc"] = names, [zlib.crc32(row) for row in raw]
        self._entries.append(entries)
        self._rows += len(names)

    def _begin(self) -> Path:
        part = self._part = self._shelf.folder / f".{uuid.uuid4().hex}.part"
        for _ in range(9):
            self._shelf.describe()
            with contextlib.suppress(FileNotFoundError):  # another process removed the folder, as nothing was in it
                part.open("xb").close()
                break
        return part

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except CannotKeep:
            self.abandon()
            raise
        except OSError as error:
            self.abandon()
            raise CannotKeep(
                f"cannot write to {self._shelf.folder}: {error.strerror or error} "
                "(make space, or set TRANSFER_CACHE to a folder elsewhere)"
            ) from error
        except TransferError as error:
            self.abandon()
            raise CannotKeep(str(error)) from error
