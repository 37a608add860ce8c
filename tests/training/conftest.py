"""A folder of images and a store with one small backbone's weights, as a user has them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transfer.config.train import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)

BACKBONE = "test_resnet"


@pytest.fixture
def config(folder: Path, weights_store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    """Make a quick config; keywords go to whichever part has them."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))

    def make(**settings: Any) -> TrainConfig:
        defaults = {
            "data": str(folder),
            "backbone": BACKBONE,
            "epochs": 3,
            "batch_size": 8,
            "device": "cpu",
            "workers": 2,
        }
        settings = defaults | settings
        kinds = (
            DataConfig,
            BackboneConfig,
            HeadConfig,
            PolicyConfig,
            LearnConfig,
            RunConfig,
            CacheConfig,
        )
        parts = [
            kind(**{key: settings.pop(key) for key in list(settings) if key in kind.__dataclass_fields__})
            for kind in kinds
        ]
        assert not settings, f"no such setting: {settings}"
        return TrainConfig(*parts)

    return make
