"""A segment, an immutable file of rows: its format, and how it is read and checked."""

import hashlib
import io
import mmap
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

# A segment is its rows, then one index entry per row, then a sha256 over the cache's key and the entries (the seal).
ENTRY = np.dtype([("digest", "S32"), ("crc", "<u4")])
SEAL_BYTES = 32
_BYTES_PER_CHECK = 4 << 20  # that a thread checks at a time


class DamagedSegment(Exception):
    """The bytes of a segment are not those that were written; the message says how they differ."""


class Segment:
    """A memory-mapped segment.

    Raises
    ------
    DamagedSegment, OSError
        The segment is damaged or belongs to another key; it cannot be read.
    """

    def __init__(self, path: Path, key: str, row_bytes: int) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            count, remainder = divmod(size - SEAL_BYTES, row_bytes + ENTRY.itemsize)
            if remainder:
                raise DamagedSegment("does not consist of whole rows")
            file.seek(count * row_bytes)
            entries, seal = file.read(count * ENTRY.itemsize), file.read()
            if seal != compute_seal(key, entries):
                raise DamagedSegment("does not belong here, or its index is damaged")
            self._map = mmap.mmap(file.fileno(), count * row_bytes, access=mmap.ACCESS_READ)
        self.entries = np.frombuffer(entries, ENTRY)
        self.rows = np.frombuffer(self._map, f"V{row_bytes}")
        self._checked = np.zeros(count, bool)

    def check(self, rows: np.ndarray, bar: tqdm) -> None:
        """Check the CRC of those of `rows` that were not checked before; raise DamagedSegment if one is wrong."""
        unchecked = np.unique(rows[~self._checked[rows]])
        size, view, bad = self.rows.itemsize, memoryview(self._map), 0
        parts = np.array_split(unchecked, 1 + len(unchecked) * size // _BYTES_PER_CHECK)

        def count_damaged(part: np.ndarray) -> int:
            crcs = [zlib.crc32(view[start : start + size]) for start in (part * size).tolist()]
            self.release()
            return int((self.entries["crc"][part] != crcs).sum())

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for part, damaged in zip(parts, pool.map(count_damaged, parts), strict=True):
                bad += damaged
                bar.update(len(part) * size)
        if bad:
            raise DamagedSegment(f"is damaged in {bad} of {len(unchecked)} rows")
        self._checked[unchecked] = True

    def release(self) -> None:
        """Unmap the pages that were read from this process; the system's page cache may retain them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def write_all(file: io.FileIO, content: bytes | memoryview) -> None:
    """Write all of `content`, in as many system calls as it takes."""
    left = memoryview(content).cast("B")
    while left:
        left = left[file.write(left) :]


def find_rows(digests: np.ndarray, segments: list[Segment]) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each of `digests`, the number of the first segment that has it (-1: none) and its row there."""
    if not segments:
        return np.full(len(digests), -1), np.zeros(len(digests), np.int64)
    stored = np.concatenate([segment.entries["digest"] for segment in segments])
    number = np.repeat(np.arange(len(segments)), [len(segment.entries) for segment in segments])
    row = np.concatenate([np.arange(len(segment.entries)) for segment in segments])
    order = np.argsort(stored, kind="stable")
    at = order[np.searchsorted(stored, digests, sorter=order).clip(max=len(stored) - 1)]
    return np.where(stored[at] == digests, number[at], -1), row[at]


def pack_digests(digests: np.ndarray | Sequence[str]) -> np.ndarray:
    """Return sha256 digests in hex as raw bytes, dtype ``S32``."""
    names = np.asarray(digests, dtype=str)
    raw = bytes.fromhex("".join(names.tolist()))
    if len(raw) != 32 * len(names) or (np.char.str_len(names) != 64).any():
        raise ValueError("a digest is not a sha256 in hex")
    return np.frombuffer(raw, "S32")


def compute_seal(key: str, entries: bytes) -> bytes:
    """Return the sha256 that binds index entries to the key of their row cache."""
    return hashlib.sha256(key.encode() + entries).digest()
