"""One file of rows: its format, and how it is read and checked."""

import hashlib
import io
import mmap
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

# A segment is its rows, an entry for each, and a sha256 over the shelf's key and the entries.
ENTRY = np.dtype([("digest", "S32"), ("crc", "<u4")])
SEAL = 32
_CHECKED = 4 << 20  # bytes that a thread checks at a time


class Damaged(Exception):
    """A segment is not what was written; says how."""


class Segment:
    """An immutable file of rows, mapped.

    Raises
    ------
    Damaged, OSError
        It is not what was written; it cannot be read.
    """

    def __init__(self, path: Path, key: str, row_bytes: int) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            count, over = divmod(size - SEAL, row_bytes + ENTRY.itemsize)
            if over:
                raise Damaged("is not of whole rows")
            file.seek(count * row_bytes)
            entries, seal = file.read(count * ENTRY.itemsize), file.read()
            if seal != seal_of(key, entries):
                raise Damaged("does not belong here, or its index is damaged")
            self._map = mmap.mmap(file.fileno(), count * row_bytes, access=mmap.ACCESS_READ)
        self.entries = np.frombuffer(entries, ENTRY)
        self.rows = np.frombuffer(self._map, f"V{row_bytes}")
        self._sound = np.zeros(count, bool)

    def check(self, rows: np.ndarray, bar: tqdm) -> None:
        """Check those of `rows` that never were."""
        fresh = np.unique(rows[~self._sound[rows]])
        size, view, bad = self.rows.itemsize, memoryview(self._map), 0
        parts = np.array_split(fresh, 1 + len(fresh) * size // _CHECKED)

        def damaged(part: np.ndarray) -> int:
            crcs = [zlib.crc32(view[start : start + size]) for start in (part * size).tolist()]
            self.release()
            return int((self.entries["crc"][part] != crcs).sum())

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, found in zip(parts, pool.map(damaged, parts), strict=True):
                bad += found
                bar.update(len(part) * size)
        if bad:
            raise Damaged(f"is damaged in {bad} of {len(fresh)} rows")
        self._sound[fresh] = True

    def release(self) -> None:
        """Let go of the pages that were read; the system may keep them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def write_all(file: io.FileIO, content: bytes | memoryview) -> None:
    """Write all of `content`, however often the system breaks off."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def find(digests: np.ndarray, segments: list[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of `digests` the number of the first segment that has it, or -1, and the row there."""
    if not segments:
        return np.full(len(digests), -1), np.zeros(len(digests), np.int64)
    there = np.concatenate([segment.entries["digest"] for segment in segments])
    number = np.repeat(np.arange(len(segments)), [len(segment.entries) for segment in segments])
    row = np.concatenate([np.arange(len(segment.entries)) for segment in segments])
    order = np.argsort(there, kind="stable")
    at = order[np.searchsorted(there, digests, sorter=order).clip(max=len(there) - 1)]
    return np.where(there[at] == digests, number[at], -1), row[at]


def packed(digests: np.ndarray | Sequence[str]) -> np.ndarray:
    """Return sha256 in hex as bytes, "S32"."""
    names = np.asarray(digests, dtype=str)
    raw = bytes.fromhex("".join(names.tolist()))
    if len(raw) != 32 * len(names) or (np.char.str_len(names) != 64).any():
        raise ValueError("a digest is not a sha256 in hex")
    return np.frombuffer(raw, "S32")


def seal_of(key: str, entries: bytes) -> bytes:
    """Return what binds entries to a shelf's key."""
    return hashlib.sha256(key.encode() + entries).digest()
