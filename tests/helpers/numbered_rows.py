"""Rows of a disk cache whose digest and values follow from a number, so that each row found can be checked."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer.disk_cache import DiskCache, RowCache

WIDTH = 10  # values in a row


def digests(numbers: Sequence[int]) -> np.ndarray:
    return np.array([hashlib.sha256(str(i).encode()).hexdigest() for i in numbers], dtype="U64")


def values(numbers: Sequence[int]) -> np.ndarray:
    return np.stack([np.full(WIDTH, i, "float32") + np.arange(WIDTH, dtype="float32") for i in numbers])


def open_rows_in(root: Path, about: dict[str, Any] | None = None) -> RowCache:
    """Open the rows as another process would."""
    return DiskCache(root).open_rows("trunk", about or {}, (WIDTH,), "float32")


def fill(rows_cache: RowCache, numbers: Sequence[int]) -> None:
    with rows_cache.open_writer() as writer:
        writer.append(digests(numbers), values(numbers))


def cached(root: Path, numbers: Sequence[int]) -> list[bool]:
    """Return which rows are cached, after checking their values."""
    located = open_rows_in(root).locate(digests(numbers))
    rows = np.flatnonzero(located.found)
    assert np.array_equal(located.take(rows), values(numbers)[rows])
    return located.found.tolist()
