"""Measure the extremes of deep images, from which the levels of a set are chosen."""

import contextlib
import functools
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL

from transfer.data.images.decode import BadImage, open_image
from transfer.data.images.levels import KINDS, find_kind
from transfer.data.shards.address import parse_address
from transfer.data.shards.prefetch import Contents
from transfer.disk_cache import CacheWriteError, DiskCache

NOT_DEEP = (-1.0, 0.0, 0.0)
_EIGHT_BITS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".heic", ".heif", ".avif"})
_RULES = {"pillow": PIL.__version__, "rules": 1}


def measure_depths(
    paths: Sequence[str] | np.ndarray, digests: np.ndarray | None = None, disk_cache: DiskCache | None = None
) -> np.ndarray:
    """Return the depth of each image, float64 (N, 3): its kind (index of `KINDS`, -1: 8 bits), least and largest value.

    Files whose names are those of 8-bit formats are not opened, of others only the header unless they are deep. With a
    `disk_cache` an image that was measured before is not opened at all; it needs `digests`, the sha256 of the files.
    """
    depths = np.tile(NOT_DEEP, (len(paths), 1))
    todo = np.array([i for i, path in enumerate(paths) if _suffix(str(path)) not in _EIGHT_BITS], dtype=np.int64)
    row_cache = None
    if disk_cache and digests is not None and len(todo):
        row_cache = disk_cache.open_rows("depths", _RULES, (3,), np.float64)
        located = row_cache.locate(digests[todo])
        depths[todo[located.found]] = located.take(np.flatnonzero(located.found))
        todo = todo[~located.found]
    if not len(todo):
        return depths
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.closing(Contents(paths, todo)) as contents:
        depths[todo] = list(pool.map(functools.partial(_measure, contents), range(len(todo))))
    if row_cache and digests is not None:
        once = todo[np.unique(digests[todo], return_index=True)[1]]
        with contextlib.suppress(CacheWriteError), row_cache.open_writer(len(once)) as writer:
            writer.append(digests[once], depths[once])
    return depths


def _suffix(path: str) -> str:
    member = parse_address(path)
    return os.path.splitext(member.name if member else path)[1].lower()


def _measure(contents: Contents, place: int) -> tuple[float, float, float]:
    """Return the depth of one image; that of a bad one is unknown."""
    file = contents[place]
    try:
        with open_image(io.BytesIO(file) if isinstance(file, bytes) else file, contents.path(place)) as image:
            kind = find_kind(image.mode)
            if not kind:
                return NOT_DEEP
            values = np.asarray(image)
            values = values[np.isfinite(values)]
            low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
            return float(KINDS.index(kind)), low, high
    except BadImage:
        return NOT_DEEP
