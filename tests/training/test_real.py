"""Real ImageNet weights on real photographs, through the whole of `train`."""

import shutil
from pathlib import Path

import pytest

from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, TrainConfig
from transfer.training.train import train

SHARED = Path(__file__).parents[3] / "shared"
OBJECTS = ("mug", "bike", "keyboard", "ruler")

pytestmark = pytest.mark.skipif(
    not (SHARED / "weights").is_dir(), reason="needs shared/ with Office-31 and ImageNet weights beside the checkout"
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Four objects in two domains, ten pictures each."""
    root = tmp_path_factory.mktemp("office")
    for domain in ("amazon", "webcam"):
        for name in OBJECTS:
            (root / domain / name).mkdir(parents=True)
            for file in sorted((SHARED / "data/office31" / domain / "images" / name).iterdir())[:10]:
                shutil.copy(file, root / domain / name)
    return root


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "lp_ft:1", "norm_only"])
@pytest.mark.parametrize("name", ["mobilenetv2_100", "torchvision:squeezenet1_1"])
def test_real_features_learn_and_what_is_frozen_stays(photographs, monkeypatch, name, policy):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
    config = TrainConfig(
        DataConfig(str(photographs), test=0.3),
        BackboneConfig(name, image_size=128 if policy == "norm_only" else None),  # it passes through all layers
        policy=PolicyConfig(policy),
        learn=LearnConfig(epochs=6, batch_size=8, device="cpu"),
    )
    if policy == "norm_only" and "squeezenet" in name:
        with pytest.raises(Exception, match="has no trainable normalisation parameters"):
            train(config)
        return
    result = train(config).result
    assert result["policy"]["frozen_unchanged"]
    assert result["backbone"]["weights"].startswith("store ")
    assert result["test"]["object"]["accuracy"] >= 0.7
    assert result["test"]["domain"]["accuracy"] >= 0.7
