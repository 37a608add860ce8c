"""All that is kept: shelves in one folder, limited in size, listed, cleared and verified."""

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from transfer.disk_cache.folder import files_in, key_of, record_of, remove
from transfer.disk_cache.segment import ENTRY, SEAL, Damaged, Segment
from transfer.disk_cache.shelf import CannotKeep, Shelf
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

DEFAULT_LIMIT = 20 << 30  # bytes
_STALE = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class ShelfInfo:
    """What lies on one shelf; `last_used` in seconds since 1970."""

    kind: str
    about: dict[str, Any]
    rows: int
    bytes: int
    last_used: float
    folder: Path


class Store:
    """Shelves of rows in one folder, shared by all processes; what was not used for longest goes first.

    Parameters
    ----------
    root : Path, optional
        Default: ``rows`` in the user's cache.
    limit : int
        Bytes of all complete segments; each process that writes may have one more under way.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shelf = Store(Path(folder)).shelf("features", {"weights": "1f3a"}, (2,), "float32")
    ...     with shelf.writing() as writer:
    ...         writer.append(["0" * 64, "f" * 64], np.array([[1, 2], [3, 4]], "float32"))
    ...     located = shelf.locate(["f" * 64, "a" * 64])
    ...     located.have, located.take(np.array([0]))
    (array([ True, False]), array([[3., 4.]], dtype=float32))
    """

    def __init__(self, root: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        if limit <= 0:
            raise TransferError(f"the cache's limit is {limit} bytes: give it more than 0, or go without a cache")
        self.root, self.limit = Path(root or get_cache_folder("rows")), limit
        self._shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()

    def shelf(self, kind: str, about: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> "Shelf":
        """Return the shelf of rows of `shape` and `dtype` that depend on `about`, plain JSON, and a digest alone."""
        shelf = Shelf(self, kind, about, shape, np.dtype(dtype))
        for written, _, part in files_in(shelf.folder, ".*.part"):
            if time.time() - written / 1e9 > _STALE:
                remove(part)
        self._shelves.add(shelf)
        return shelf

    def shelves(self) -> list[ShelfInfo]:
        """Return what is kept, the last used first; `about` is empty where it is damaged."""
        found: dict[Path, ShelfInfo] = {}
        for used, size, path in reversed(files_in(self.root, "*/*/*.rows")):
            record = record_of(path.parent) or {"about": {}, "row_bytes": size}
            new = ShelfInfo(path.parts[-3], record["about"], 0, 0, used / 1e9, path.parent)
            info = found.setdefault(path.parent, new)
            rows = info.rows + (size - SEAL) // (record["row_bytes"] + ENTRY.itemsize)
            found[path.parent] = replace(info, rows=rows, bytes=info.bytes + size)
        return list(found.values())

    def clear(self, kind: str | None = None) -> tuple[int, int]:
        """Remove all that is kept, or one `kind` of it; return how many segments and bytes that was.

        What another process is just writing goes too; that process gets `CannotKeep`.
        """
        segments = nbytes = 0
        for _, size, path in files_in(self.root, "*/*/*.rows") + files_in(self.root, "*/*/.*.part"):
            if kind in (None, path.parts[-3]) and remove(path):
                segments, nbytes = segments + (path.suffix == ".rows"), nbytes + size
        return segments, nbytes

    def verify(self) -> list[tuple[Path, str]]:
        """Read all that is kept, remove what is damaged; return each such file with what was wrong."""
        problems = []
        files = files_in(self.root, "*/*/*.rows")
        total = sum(size for _, size, _ in files)
        with tqdm(total=total, desc="verifying the cache", unit="B", unit_scale=True, disable=None) as bar:
            for _, _, path in files:
                try:
                    record = record_of(path.parent)
                    if record is None:
                        raise Damaged("has no sound about.json beside it")
                    segment = Segment(path, key_of(record), record["row_bytes"])
                    segment.check(np.arange(len(segment.rows)), bar)
                except FileNotFoundError:
                    pass  # removed by another process
                except OSError as error:
                    problems.append((path, f"cannot be read: {error.strerror or error}"))
                except Damaged as damage:
                    problems.append((path, str(damage)))
                    remove(path)
        return problems

    def fits(self, nbytes: int) -> bool:
        """Say whether `nbytes` more can be kept beside what this store's open shelves hold."""
        in_use = self._in_use()
        return nbytes + sum(size for _, size, path in files_in(self.root, "*/*/*.rows") if path in in_use) <= self.limit

    def make_room(self, nbytes: int) -> None:
        """Remove the longest unused, but for what this store's open shelves hold, until there is room for `nbytes`.

        Raises
        ------
        CannotKeep
            There cannot be; nothing is removed.
        """
        if not self.fits(nbytes):
            raise CannotKeep(
                f"{nbytes / 1e9:.3g} GB more do not fit in the cache {self.root}, limited to {self.limit / 1e9:.3g} GB"
            )
        files, in_use = files_in(self.root, "*/*/*.rows"), self._in_use()
        excess = sum(size for _, size, _ in files) + nbytes - self.limit
        for _, size, path in files:
            if excess > 0 and path not in in_use and remove(path):
                excess -= size

    def _in_use(self) -> set[Path]:
        return set().union(*(shelf.in_use for shelf in self._shelves))
