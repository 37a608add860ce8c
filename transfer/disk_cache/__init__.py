"""Rows kept on disk under a key: streamed while written, whole or absent, mapped and checked when read."""

from transfer.store.shelf import CannotKeep, Located, Shelf, Writer
from transfer.store.store import DEFAULT_LIMIT, ShelfInfo, Store

__all__ = ["DEFAULT_LIMIT", "CannotKeep", "Located", "Shelf", "ShelfInfo", "Store", "Writer"]
