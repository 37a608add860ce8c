import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer.config.train import TrainConfig
from transfer.training.train import train


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a run trains it."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run(config: Callable[..., TrainConfig], trained_once: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, which the test may change."""
    made = config(out=trained_once, policy="partial:2", epochs=4, lr=0.01)
    if not trained_once.exists():
        train(made)
    return Path(shutil.copytree(trained_once, tmp_path / "run"))
