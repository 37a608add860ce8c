"""RowCache: rows of one shape and type under one key; found, read and written."""

import contextlib
import json
import logging
import math
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.disk_cache.folder import hash_record, list_files, read_record, remove_file
from transfer.disk_cache.segment_file import (
    ENTRY,
    SEAL_BYTES,
    DamagedSegment,
    Segment,
    compute_seal,
    find_rows,
    pack_digests,
    write_all,
)
from transfer.errors import TransferError
from transfer.runtime.files import write_json

log = logging.getLogger(__name__)

ROW_FORMAT = 1  # of the files; part of the key
MAX_MAPPED_BYTES = 64 << 20  # of segments; the pages read from more than that are released after each read


class CacheWriteError(TransferError):
    """Rows cannot be written to the cache. The caller can go on without it."""


class RowCache:
    """Rows of one shape and type under one key. Open it with :meth:`DiskCache.open_rows`.

    `root` is the folder of this kind of rows. A segment is completed at `segment_bytes`. `make_room` is called with a
    number of bytes before they are written; it raises `CacheWriteError` if they cannot fit.
    """

    def __init__(
        self,
        root: Path,
        about: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: np.dtype,
        segment_bytes: int,
        make_room: Callable[[int], None],
    ) -> None:
        self.shape, self.dtype, self.make_room = shape, dtype, make_room
        self.row_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not self.row_bytes:
            raise ValueError(f"rows of {shape} {dtype} cannot be cached")
        record = {"format": ROW_FORMAT, "kind": root.name, "about": dict(about), "row_bytes": self.row_bytes}
        record |= {"shape": shape, "dtype": np.lib.format.dtype_to_descr(dtype)}
        self.record = json.loads(json.dumps(record, allow_nan=False))
        self.key = hash_record(self.record)
        self.folder = root / self.key[:32]
        self.segment_rows = max(1, segment_bytes // (self.row_bytes + ENTRY.itemsize))
        self.written: set[Path] = set()
        self._segments: dict[Path, Segment] = {}
        self._rejected: set[Path] = set()

    @property
    def in_use(self) -> set[Path]:
        """The segments that this object has open or has written."""
        return self.written | self._segments.keys()

    def locate(self, digests: np.ndarray | Sequence[str]) -> "LocatedRows":
        """Find the rows of `digests`, sha256 in hex, shape (N,).

        A row found for the first time is checked. If it is damaged, its whole segment is removed with a warning,
        and the rows in it count as missing.
        """
        wanted = pack_digests(digests)
        while True:
            segments, rejected = self._open_segments(), len(self._rejected)
            number, row = find_rows(wanted, segments)
            used = np.unique(number[number >= 0])
            size = int((number >= 0).sum()) * self.row_bytes
            how = {"unit": "B", "unit_scale": True, "disable": None, "delay": 2, "leave": False}
            with tqdm(total=size, desc="checking the cache", **how) as bar:
                for n in used:
                    try:
                        segments[n].check(row[number == n], bar)
                    except DamagedSegment as damage:
                        self._reject(segments[n].path, damage)
            if len(self._rejected) == rejected:
                break
        for n in used:
            with contextlib.suppress(OSError):
                os.utime(segments[n].path)
        return LocatedRows(self, segments, number, row)

    @contextlib.contextmanager
    def open_writer(self, rows: int | None = None) -> Iterator["RowWriter"]:
        """Yield a writer. Appended rows are committed at the end, also if the block raises.

        `rows` is how many will be appended, if known: more than can ever fit are refused at once.

        Raises
        ------
        CacheWriteError
            The rows cannot be written. Segments completed earlier stay.
        """
        if rows:
            seals = -(-rows // self.segment_rows) * SEAL_BYTES
            self.make_room(rows * (self.row_bytes + ENTRY.itemsize) + seals)
        writer = RowWriter(self)
        try:
            yield writer
            writer.commit()
        except BaseException:
            with contextlib.suppress(CacheWriteError):
                writer.commit()
            raise
        finally:
            writer.discard()

    def write_record(self) -> None:
        """Create the folder and its about.json if missing."""
        if read_record(self.folder) is None:
            write_json(self.folder / "about.json", self.record)

    def _open_segments(self) -> list[Segment]:
        """Return the segments that exist now, in the same order in every process."""
        existing = {path for _, _, path in list_files(self.folder, "*.rows")} - self._rejected
        opened = {}
        for path in sorted(existing):
            try:
                opened[path] = self._segments.get(path) or Segment(path, self.key, self.row_bytes)
            except DamagedSegment as damage:
                self._reject(path, damage)
            except OSError:
                pass  # removed by another process, or not readable by this user
        self._segments = opened
        return list(opened.values())

    def _reject(self, path: Path, damage: DamagedSegment) -> None:
        self._rejected.add(path)  # in case it cannot be removed
        self._segments.pop(path, None)
        remove_file(path)
        log.warning("%s %s: removed; its rows are computed again", path, damage)


class LocatedRows:
    """Rows found by :meth:`RowCache.locate`, those in the mask `found` (N,). They stay readable without their files."""

    def __init__(self, rows: RowCache, segments: list[Segment], number: np.ndarray, row: np.ndarray) -> None:
        self.found = number >= 0
        self._rows, self._segments, self._number, self._row = rows, segments, number, row
        self._release = sum(segment.rows.nbytes for segment in segments) > MAX_MAPPED_BYTES

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of the rows at the indices `rows` (M,) of the located digests: (M, ...).

        Raises
        ------
        KeyError
            A row is not cached.
        """
        number, row = self._number[rows], self._row[rows]
        if (number < 0).any():
            raise KeyError(f"row {np.asarray(rows)[number < 0][0]} is not in the cache")
        used = np.unique(number)
        if len(used) == 1:
            out = self._segments[used[0]].rows.take(row)
        else:
            out = np.empty(len(row), f"V{self._rows.row_bytes}")
            for n in used:
                in_segment = number == n
                out[in_segment] = self._segments[n].rows[row[in_segment]]
        if self._release:  # reading a row may map up to 2 MiB around it
            for n in used:
                self._segments[n].release()
        return out.view(self._rows.dtype).reshape(len(row), *self._rows.shape)


class RowWriter:
    """Appends rows to a row cache. Open it with :meth:`RowCache.open_writer`."""

    def __init__(self, rows: RowCache) -> None:
        self._cache = rows
        self._part: Path | None = None
        self._entries: list[np.ndarray] = []
        self._rows = 0

    def append(self, digests: np.ndarray | Sequence[str], values: np.ndarray) -> None:
        """Write rows `values` (n, ...) of the images with `digests` (n,), sha256 in hex."""
        names, values, cache = pack_digests(digests), np.ascontiguousarray(values), self._cache
        if values.dtype != cache.dtype or values.shape != (len(names), *cache.shape):
            raise ValueError(f"{len(names)} rows of {cache.shape} {cache.dtype}, not {values.shape} {values.dtype}")
        raw = values.reshape(len(names), math.prod(cache.shape)).view(np.uint8)
        while len(names):
            fit = cache.segment_rows - self._rows
            self._write(names[:fit], raw[:fit])
            names, raw = names[fit:], raw[fit:]
            if self._rows == cache.segment_rows:
                self.commit()

    def commit(self) -> None:
        """Complete a segment from the rows appended since the last one. After an interruption, call it again."""
        if self._part is None or not self._rows:
            return
        entries = np.concatenate(self._entries)[: self._rows].tobytes()
        with self._discard_on_error():
            self._cache.make_room(self._rows * self._cache.row_bytes + len(entries) + SEAL_BYTES)
            with self._part.open("rb+", buffering=0) as file:
                file.seek(self._rows * self._cache.row_bytes)
                write_all(file, entries + compute_seal(self._cache.key, entries))
                file.truncate()
                os.fsync(file.fileno())
            self._cache.write_record()
            path = self._part.with_name(self._part.name[1:]).with_suffix(".rows")
            self._cache.written.add(path)
            self._part.replace(path)
        self._part, self._entries, self._rows = None, [], 0

    def discard(self) -> None:
        """Remove the rows appended since the last segment."""
        if self._part is not None:
            remove_file(self._part)
        self._part, self._entries, self._rows = None, [], 0

    def _write(self, names: np.ndarray, raw: np.ndarray) -> None:
        with self._discard_on_error():
            part = self._part or self._create_part()
            with part.open("rb+", buffering=0) as file:  # an interrupted buffer might be flushed later
                file.seek(self._rows * self._cache.row_bytes)
                write_all(file, raw.data)
        entries = np.empty(len(names), ENTRY)
        entries["digest"], entries["crc"] = names, [zlib.crc32(row) for row in raw]
        self._entries.append(entries)
        self._rows += len(names)

    def _create_part(self) -> Path:
        part = self._part = self._cache.folder / f".{uuid.uuid4().hex}.part"
        for _ in range(9):
            self._cache.write_record()
            with contextlib.suppress(FileNotFoundError):  # another process removed the empty folder
                part.open("xb").close()
                break
        return part

    @contextlib.contextmanager
    def _discard_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.discard()
            raise CacheWriteError(
                f"cannot write to {self._cache.folder}: {error.strerror or error} "
                "(free some space, or set TRANSFER_CACHE to another folder)"
            ) from error
        except TransferError as error:
            self.discard()
            raise CacheWriteError(str(error)) from error
