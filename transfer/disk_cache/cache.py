"""DiskCache: all cached rows in one folder, limited in size; listed, cleared and verified."""

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.disk_cache.folder import hash_record, list_files, read_record, remove_file
from transfer.disk_cache.row_cache import CacheWriteError, RowCache
from transfer.disk_cache.segment_file import ENTRY, SEAL_BYTES, DamagedSegment, Segment
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

DEFAULT_LIMIT = 20 << 30  # bytes of all segments together
MAX_SEGMENT_BYTES = 256 << 20  # what a killed run can lose at most
_MAX_PART_AGE = 24 * 60 * 60  # seconds after which an unfinished file is taken for that of a killed process


@dataclass(frozen=True)
class CacheEntry:
    """The cached rows under one key; `last_used` in seconds since 1970."""

    kind: str
    about: dict[str, Any]
    rows: int
    bytes: int
    last_used: float
    folder: Path


class DiskCache:
    """Cached rows in one folder, shared by all processes; the least recently used are removed first.

    By default the folder is ``rows`` in the user's cache. `limit` is in bytes of all complete segments; each writing
    process may use one more segment while it writes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = DiskCache(Path(folder)).open_rows("features", {"weights": "1f3a"}, (2,), "float32")
    ...     with rows.open_writer() as writer:
    ...         writer.append(["0" * 64, "f" * 64], np.array([[1, 2], [3, 4]], "float32"))
    ...     located = rows.locate(["f" * 64, "a" * 64])
    ...     located.found, located.take(np.array([0]))
    (array([ True, False]), array([[3., 4.]], dtype=float32))
    """

    def __init__(self, root: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        if limit <= 0:
            raise TransferError(f"the cache's limit is {limit} bytes: give it more than 0, or go without a cache")
        self.root, self.limit = Path(root or get_cache_folder("rows")), limit
        self._opened: weakref.WeakValueDictionary[Path, RowCache] = weakref.WeakValueDictionary()
        self._last_opened: RowCache | None = None

    def open_rows(self, kind: str, about: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> RowCache:
        """Return the cache of rows of one `shape` and `dtype`; the open one, whose rows are checked, if there is one.

        `kind` is the folder's name, such as ``trunk``. `about` is everything that a row depends on besides the digest
        of its image, as plain JSON.
        """
        size = min(MAX_SEGMENT_BYTES, self.limit // 4)
        rows = RowCache(self.root / kind, about, shape, np.dtype(dtype), size, self.make_room)
        for written, _, part in list_files(rows.folder, ".*.part"):
            if time.time() - written / 1e9 > _MAX_PART_AGE:
                remove_file(part)
        rows = self._opened.setdefault(rows.folder, rows)
        self._last_opened = rows  # a run opens the same ones several times, one after the other
        return rows

    def list_entries(self) -> list[CacheEntry]:
        """Return what is cached, the last used first; `about` is empty where the record is damaged."""
        found: dict[Path, CacheEntry] = {}
        for used, size, path in reversed(list_files(self.root, "*/*/*.rows")):
            record = read_record(path.parent) or {"about": {}, "row_bytes": size}
            new = CacheEntry(path.parts[-3], record["about"], 0, 0, used / 1e9, path.parent)
            entry = found.setdefault(path.parent, new)
            rows = entry.rows + (size - SEAL_BYTES) // (record["row_bytes"] + ENTRY.itemsize)
            found[path.parent] = replace(entry, rows=rows, bytes=entry.bytes + size)
        return list(found.values())

    def clear(self, kind: str | None = None) -> tuple[int, int]:
        """Remove everything, or one `kind`; return the numbers of segments and bytes removed.

        Files that another process is writing are removed too; that process gets `CacheWriteError`.
        """
        segments = nbytes = 0
        for _, size, path in list_files(self.root, "*/*/*.rows") + list_files(self.root, "*/*/.*.part"):
            if kind in (None, path.parts[-3]) and remove_file(path):
                segments, nbytes = segments + (path.suffix == ".rows"), nbytes + size
        return segments, nbytes

    def verify(self) -> list[tuple[Path, str]]:
        """Read all segments and remove damaged ones; return each problem's path and description."""
        problems = []
        files = list_files(self.root, "*/*/*.rows")
        total = sum(size for _, size, _ in files)
        with tqdm(total=total, desc="verifying the cache", unit="B", unit_scale=True, disable=None) as bar:
            for _, _, path in files:
                try:
                    record = read_record(path.parent)
                    if record is None:
                        raise DamagedSegment("has no sound about.json beside it")
                    segment = Segment(path, hash_record(record), record["row_bytes"])
                    segment.check(np.arange(len(segment.rows)), bar)
                except FileNotFoundError:
                    pass  # removed by another process
                except OSError as error:
                    problems.append((path, f"cannot be read: {error.strerror or error}"))
                except DamagedSegment as damage:
                    problems.append((path, str(damage)))
                    remove_file(path)
        return problems

    def fits(self, nbytes: int) -> bool:
        """Return whether `nbytes` more fit beside the segments that this object's open row caches use."""
        in_use = self._in_use()
        used = sum(size for _, size, path in list_files(self.root, "*/*/*.rows") if path in in_use)
        return nbytes + used <= self.limit

    def make_room(self, nbytes: int) -> None:
        """Remove the least recently used segments until `nbytes` fit; those of open row caches stay.

        Raises
        ------
        CacheWriteError
            `nbytes` cannot fit; nothing is removed.
        """
        if not self.fits(nbytes):
            raise CacheWriteError(
                f"{nbytes / 1e9:.3g} GB more do not fit in the cache {self.root}, limited to {self.limit / 1e9:.3g} GB"
            )
        files, in_use = list_files(self.root, "*/*/*.rows"), self._in_use()
        excess = sum(size for _, size, _ in files) + nbytes - self.limit
        for _, size, path in files:
            if excess > 0 and path not in in_use and remove_file(path):
                excess -= size

    def _in_use(self) -> set[Path]:
        opened = (reference() for reference in self._opened.valuerefs())
        return set().union(*(rows.in_use for rows in opened if rows))
