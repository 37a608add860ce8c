"""Let glibc reuse freed memory during training, as GPU allocators do.

By default glibc returns every large block to the system when it is freed. Allocating the next one then costs a page
fault per 4 KiB. Training does this with all activations in every step, and spends up to half of its time on it.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
TRAINING_THRESHOLDS = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: -1}
DEFAULT_THRESHOLDS = {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26}  # the limits to which glibc adapts them itself
USER_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which users tune malloc; if one is set, nothing is changed."""

_depth = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep memory that is freed within the block for reuse; return it to the system at the end of the outermost block.

    Examples
    --------
    >>> @keep_freed_memory()
    ... def fit() -> int:
    ...     return 1
    >>> fit()
    1
    """
    global _depth
    libc = _glibc()
    if libc and not _depth:
        _set(libc, TRAINING_THRESHOLDS)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if libc and not _depth:
            _set(libc, DEFAULT_THRESHOLDS)
            libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, thresholds: dict[int, int]) -> None:
    for which, value in thresholds.items():
        libc.mallopt(which, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc and the user has not tuned it."""
    if sys.platform != "linux" or any(name in os.environ for name in USER_VARIABLES):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
