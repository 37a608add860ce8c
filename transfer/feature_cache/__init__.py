"""What the frozen trunk puts out, kept on disk under a fingerprint, fed to the tail."""

from transfer.feature_cache.feed import Feed, TrunkCache

__all__ = ["Feed", "TrunkCache"]
