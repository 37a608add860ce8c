"""Rows on disk under a key: written whole or not at all, memory-mapped and checked when read, bounded in size."""

from transfer.disk_cache.cache import DEFAULT_LIMIT, CacheEntry, DiskCache
from transfer.disk_cache.row_cache import CacheWriteError, LocatedRows, RowCache, RowWriter

__all__ = ["DEFAULT_LIMIT", "CacheEntry", "CacheWriteError", "DiskCache", "LocatedRows", "RowCache", "RowWriter"]
