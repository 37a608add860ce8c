import pytest

from transfer.training.train import train


@pytest.fixture
def run(config, tmp_path):
    out = tmp_path / "run"
    train(config(out=out, policy="partial:2", epochs=4, lr=0.01))
    return out
