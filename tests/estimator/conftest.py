"""The tiny set as arrays and paths, and an estimator that is quick to fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer.data.table import ImageTable

BACKBONE = "test_resnet"


@pytest.fixture(scope="session")
def objects(images: ImageTable) -> np.ndarray:
    """The name of each image's object."""
    return np.array(images.objects)[images.object]


@pytest.fixture(autouse=True)
def store(weights_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights files, by the name of the backbone."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))
    return weights_store


@pytest.fixture
def classifier(store: Path) -> Callable[..., Any]:
    """Make a classifier on the small backbone."""
    from transfer.estimator import TransferClassifier

    return lambda **settings: TransferClassifier(BACKBONE, **({"device": "cpu", "epochs": 2} | settings))
