from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transfer.config.train import CacheConfig
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel


@pytest.fixture
def ready(taught: Callable[..., Any]) -> Callable[..., TransferModel]:
    """Build a model, frozen under a policy."""

    def build(policy: str = "partial:1", precision: str = "float16", **options: Any) -> TransferModel:
        model, plan = taught(policy, **options)
        model.freeze(plan.phases[0])
        model.cut_precision = precision
        return model.eval()

    return build


@pytest.fixture
def caches(tmp_path: Path) -> Callable[..., TrunkCache]:
    """Build a cache in the test's own folder, or, with `kept` false, one that keeps nothing."""

    def build(kept: bool = True, views: int = 0, limit: int = 1 << 30) -> TrunkCache:
        return TrunkCache(CacheConfig(cache=kept, views=views), DiskCache(tmp_path / "rows", limit) if kept else None)

    return build
