"""The tiny set as arrays and paths, and an estimator quick to fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.data.table import ImageTable

BACKBONE = "test_resnet"


@pytest.fixture(scope="session")
def pixels(images: ImageTable) -> np.ndarray:
    """(48, 32, 32, 3) uint8."""
    return np.stack([np.asarray(Image.open(path)) for path in images.paths])


@pytest.fixture(scope="session")
def objects(images: ImageTable) -> np.ndarray:
    """The name of each image's object."""
    return np.array(images.objects)[images.object]


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of a small backbone, for images of 32 pixels, as a store holds them."""
    import torch
    from safetensors.torch import save_file

    from transfer import backbones

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("store")
    backbone = backbones.load(BACKBONE, random_init=True)
    save_file(backbone.network.state_dict(), root / f"{BACKBONE}.safetensors")
    preprocessing = backbone.preprocessing.to_dict() | {"input_size": [3, 32, 32], "crop_pct": 1.0}
    (root / f"{BACKBONE}.json").write_text(json.dumps(preprocessing))
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(root))
    return root


@pytest.fixture
def classifier(store: Path) -> Callable[..., Any]:
    """Make a classifier on the small backbone."""
    from transfer.estimator import TransferClassifier

    return lambda **settings: TransferClassifier(BACKBONE, **({"device": "cpu", "epochs": 2} | settings))
