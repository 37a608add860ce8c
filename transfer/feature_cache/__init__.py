"""Features of the frozen trunk, cached on disk under a fingerprint and fed to the trained tail."""

from transfer.feature_cache.feed import Feed, TrunkCache

__all__ = ["Feed", "TrunkCache"]
