from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transfer.cache import TrunkCache
from transfer.config import CacheConfig
from transfer.model import TransferModel
from transfer.store import Store


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
        return TrunkCache(CacheConfig(cache=kept, views=views), Store(tmp_path / "rows", limit) if kept else None)

    return build
