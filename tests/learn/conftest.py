"""A folder of images and a store with one small backbone's weights, as a user has them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transfer.config import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from transfer.data.table import ImageTable

BACKBONE = "test_resnet"


@pytest.fixture(scope="session")
def folder(images: ImageTable) -> Path:
    """domain/class/*.png."""
    return Path(str(images.paths[0])).parents[2]


@pytest.fixture(scope="session")
def weights_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a small backbone, for images of 32 pixels, as a store holds them."""
    from safetensors.torch import save_file

    from transfer import backbones

    root = tmp_path_factory.mktemp("store")
    backbone = backbones.load(BACKBONE, random_init=True)
    save_file(backbone.network.state_dict(), root / f"{BACKBONE}.safetensors")
    preprocessing = backbone.preprocessing.to_dict() | {"input_size": [3, 32, 32], "crop_pct": 1.0}
    (root / f"{BACKBONE}.json").write_text(json.dumps(preprocessing))
    return root


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
