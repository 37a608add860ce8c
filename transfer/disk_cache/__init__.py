"""Rows kept on disk under a key: streamed while written, whole or absent, mapped and checked when read."""

from transfer.disk_cache.shelf import CannotKeep, Located, Shelf, Writer
from transfer.disk_cache.store import DEFAULT_LIMIT, ShelfInfo, Store

__all__ = ["DEFAULT_LIMIT", "CannotKeep", "Located", "Shelf", "ShelfInfo", "Store", "Writer"]
