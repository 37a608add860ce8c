"""Other backbones on this machine, compared on the images of an advice."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.config.checked import from_dict
from transfer.config.commands import AdviseConfig
from transfer.config.train import BackboneConfig, TrainConfig
from transfer.feature_cache import TrunkCache
from transfer.heads.metrics import Z_95
from transfer.training.auto_policy import advise_policy
from transfer.training.setup import read_images, split_images
from transfer.tuning import other_backbones as module
from transfer.tuning.advise import advise
from transfer.tuning.other_backbones import list_local_backbones


def test_the_default_comes_first_then_packages_the_bundle_and_the_store(
    weights_store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(weights_store, store)
    (store / "no_backbone.safetensors").write_bytes(b"")
    (store / "squeezenet1_1.safetensors").write_bytes(b"")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(store))
    found = list_local_backbones()
    assert found[0] == BackboneConfig().backbone
    assert found[-3:] == ["glyphnet", "torchvision:squeezenet1_1", "test_resnet"]
    monkeypatch.delenv("TRANSFER_WEIGHTS")
    assert list_local_backbones()[-1] == "glyphnet"


def test_a_clear_lead_is_better_and_carried_out(config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that carries the advice out has the better backbone, if one is better."""
    monkeypatch.setattr(module, "list_local_backbones", lambda: ["glyphnet", "test_resnet"])
    given = config(shots=4, random_init=True, image_size=32)
    result = advise(AdviseConfig(given))
    for row in result["others"]:
        assert row["name"] == "glyphnet"
        assert row["better"] == (row["accuracy"] - row["against"] > row["error"])
    better = any(row["better"] for row in result["others"])
    found = from_dict(TrainConfig, result["recommended"])
    assert found.backbone.backbone == ("glyphnet" if better else "test_resnet")
    assert from_dict(TrainConfig, result["as_requested"]).policy.policy == result["advice"]["best"]["policy"]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_difference_is_paired(
    share: float, config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With a known number of correct predictions: a lead counts from 1.96 standard errors on; none fits above all."""
    given = config(backbone="test_resnet", image_size=32)
    images = read_images(given.data)
    cache = TrunkCache(given.cache)
    found = advise_policy(given, images, split_images(images, given.data, 0), cache)
    labels = found.evidence.labels
    wrong = np.where(np.arange(len(labels)) < share * len(labels), labels, (labels + 1) % 3)
    probes = {
        name: replace(probe, predictions=wrong, accuracy=float((wrong == labels).mean()))
        for name, probe in found.evidence.probes.items()
    }
    found = replace(found, evidence=replace(found.evidence, probes=probes))
    monkeypatch.setattr(module, "list_local_backbones", lambda: ["test_resnet", "no_such_net", "glyphnet"])
    rows = module.compare_other_backbones(given, found, images, cache)
    if share == 1.0:
        assert rows == []
        return
    (row,) = rows
    assert "not compared with no_such_net: unknown backbone" in caplog.text
    assert row["name"] == "glyphnet"
    assert row["weights"] == "bundle"
    assert row["images"] == len(labels)
    assert row["against"] == pytest.approx(float((wrong == labels).mean()))
    assert 0 < row["error"] <= Z_95 * ((len(labels) + 1) ** 0.5) / len(labels) + 1e-9
    assert row["better"] == (row["accuracy"] - row["against"] > row["error"])
    assert row["better"]  # colours, which glyphnet's features separate, against a third
