"""Which backbones a budget allows: seconds for the images, from the speed of each network on this machine."""

import time

import numpy as np
import pytest
import torch

from transfer.backbones.trunk import Trunk
from transfer.backbones.weights import load
from transfer.config.commands import AdviseConfig
from transfer.config.train import BackboneConfig
from transfer.errors import TransferError
from transfer.tuning import advise as advise_module
from transfer.tuning import budget as module
from transfer.tuning.advise import advise
from transfer.tuning.budget import estimate_seconds, select_affordable

SPEEDS = {"glyphnet": 1000.0, "tf_efficientnet_lite0": 100.0, "tf_efficientnet_lite2": 40.0}


@pytest.fixture
def speeds(monkeypatch):
    """Let the networks have the speeds above."""

    class Rates:
        def __init__(self, device):
            assert device.type == "cpu"

        def measure(self, names):
            return {name: SPEEDS[name] for name in names}

    monkeypatch.setattr(module, "MeasuredRates", Rates)


def make_configs(*names, **options):
    return {name: BackboneConfig(name, **options) for name in names}


def test_seconds_are_images_by_speed_and_area(speeds):
    names = ("glyphnet", "tf_efficientnet_lite2")
    assert estimate_seconds(make_configs(*names), 200, "cpu") == {"glyphnet": 0.2, "tf_efficientnet_lite2": 5.0}
    twice = estimate_seconds(make_configs(*names, image_size=130), 200, "cpu")
    assert twice["tf_efficientnet_lite2"] == pytest.approx(5.0 / 4)  # 260 pixels in pretraining
    assert twice["glyphnet"] == pytest.approx(0.2 * (130 / 48) ** 2)


def test_those_within_the_budget_stay_in_order_and_the_others_are_named(speeds):
    configs = make_configs("tf_efficientnet_lite2", "tf_efficientnet_lite0", "glyphnet")
    found, notes = select_affordable(configs, 1000, 10.0, "cpu")
    assert list(found) == ["tf_efficientnet_lite0", "glyphnet"]
    assert notes == ["over --budget 10 s for 1000 images, not ranked: tf_efficientnet_lite2 (25 s)"]
    assert select_affordable(configs, 1000, 25.0, "cpu") == (configs, [])


def test_a_budget_below_the_fastest_is_an_error_that_says_so(speeds):
    with pytest.raises(TransferError, match=r"--budget 0\.5: the fastest .* glyphnet, takes about 1 s for 1000 images"):
        select_affordable(make_configs("tf_efficientnet_lite2", "glyphnet"), 1000, 0.5, "cpu")


def test_a_backbone_over_the_budget_is_never_run(config, speeds, monkeypatch):
    ran = []
    real = advise_module.advise_policy

    def record_name(given, *rest):
        ran.append(given.backbone.backbone)
        return real(given, *rest)

    monkeypatch.setattr(advise_module, "advise_policy", record_name)
    names = ("tf_efficientnet_lite0", "glyphnet")
    result = advise(AdviseConfig(config(), backbones=names, budget=0.1))  # 48 images: 0.48 and 0.05 seconds
    assert ran == ["glyphnet"]
    assert [row["name"] for row in result["backbones"]] == ["glyphnet"]
    assert result["recommended"]["backbone"]["backbone"] == "glyphnet"
    assert result["notes"][0] == "over --budget 0.1 s for 48 images, not ranked: tf_efficientnet_lite0 (0.48 s)"


def test_a_budget_needs_several_backbones(config):
    with pytest.raises(TransferError, match="--budget chooses among several backbones: add --backbones"):
        AdviseConfig(config(), budget=5.0)
    with pytest.raises(TransferError, match="--budget -1"):
        AdviseConfig(config(), backbones=("glyphnet",), budget=-1.0)


def test_the_estimate_is_near_the_time_that_the_network_takes(monkeypatch, tmp_path):
    """Processor time of random images, within a factor of three: the machine may be busy."""
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))
    expected = estimate_seconds(make_configs("glyphnet"), 512, "cpu")["glyphnet"]
    backbone = load("glyphnet")
    trunk = Trunk(backbone, len(backbone.stages), store=False)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (512, 3, 48, 48), np.uint8))
    trunk(images)
    start = time.process_time()
    trunk(images)
    assert expected / 3 < (time.process_time() - start) / torch.get_num_threads() < 3 * expected
