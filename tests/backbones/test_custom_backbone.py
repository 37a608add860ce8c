"""A backbone defined outside the package, in one file given as a plugin, does all that a built-in backbone does."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_command
from plugin_runs import check_resuming
from safetensors.torch import save_file

from transfer.adaptation.adapt import adapt
from transfer.backbones import load, registry
from transfer.backbones.catalogue import list_backbones
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.commands import ExportConfig
from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.formats import export
from transfer.report.page import write_report
from transfer.runs import checkpoint
from transfer.runtime import plugins
from transfer.training.train import train

PLUGIN = '''
"""A tiny residual network with a stem and three stages; its weights lie beside this file."""

from pathlib import Path

from torch import nn

from transfer import register_backbone


class TinyBlock(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return x + self.conv2(x)


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.layer1 = nn.Sequential(TinyBlock(8, 12))
        self.layer2 = nn.Sequential(TinyBlock(12, 16))
        self.layer3 = nn.Sequential(TinyBlock(16, 20))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        return self.pool(self.layer3(self.layer2(self.layer1(self.stem(x)))))


register_backbone(
    "tinynet",
    TinyNet,
    {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0},
    weights=Path(__file__).with_name("tinynet.safetensors"),
    classifier="fc",
)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin's file with weights beside it, loaded; its backbone is forgotten after the test."""
    monkeypatch.delenv("TRANSFER_WEIGHTS", raising=False)
    file = tmp_path / "tinynet_plugin.py"
    file.write_text(PLUGIN)
    monkeypatch.setattr(plugins, "_files", {})
    plugins.load_plugin(str(file))
    state = load("tinynet", random_init=True, seed=5).network.state_dict()
    state |= {"fc.weight": torch.randn(7, 20), "fc.bias": torch.zeros(7)}
    save_file(state, tmp_path / "tinynet.safetensors")
    yield file
    registry.BACKBONES.pop("tinynet", None)
    sys.modules.pop("tinynet_plugin", None)


@pytest.fixture
def config(folder: Path) -> Callable[..., TrainConfig]:
    return partial(_configure, str(folder))


def _configure(data: str, policy: str = "partial:1", **run: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data),
        backbone=BackboneConfig("tinynet"),
        policy=PolicyConfig(policy),
        learn=LearnConfig(epochs=2, augment="none", device="cpu", workers=1),
        run=RunConfig(**run),
    )


def test_loading(plugin, tmp_path):
    backbone = load("tinynet", classifier=True)
    assert backbone.weights == f"file {tmp_path / 'tinynet.safetensors'}"
    assert [stage.name for stage in backbone.stages] == ["stem", "layer1", "layer2", "layer3"]
    assert all(backbone.can_cut(cut) for cut in range(5))
    assert (backbone.width, backbone.classifier.out_features) == (20, 7)
    assert backbone.preprocessing.input_size == (3, 32, 32)
    assert load("tinynet", image_size=48).preprocessing.input_size == (3, 48, 48)


def test_the_catalogue(plugin):
    (row,) = list_backbones("tiny*t")
    assert (row.name, row.provider, row.width, row.stages, row.where) == ("tinynet", "registered", 20, 4, "file")


def test_names_that_are_taken_or_invalid(plugin):
    record = {"input_size": [3, 32, 32]}
    with pytest.raises(TransferError, match=r"registered already, by tinynet_plugin\.TinyNet"):
        registry.register_backbone("tinynet", lambda: None, record)
    with pytest.raises(TransferError, match="letters, digits"):
        registry.register_backbone("timm:tiny", lambda: None, record)
    registry.register_backbone("resnet18", lambda: None, record)
    try:
        with pytest.raises(TransferError, match="'resnet18' is registered, and timm has it, too"):
            registry.resolve("resnet18")
    finally:
        del registry.BACKBONES["resnet18"]


def test_without_weights_the_error_says_what_to_give(plugin, tmp_path):
    found = registry.BACKBONES["tinynet"]
    registry.BACKBONES["tinynet"] = replace(found, weights=None)
    with pytest.raises(TransferError, match=r"tinynet has no published weights: give --weights.*--random-init"):
        load("tinynet")
    assert load("tinynet", weights=tmp_path / "tinynet.safetensors").width == 20


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "truncate:1+full", "head2toe", "scratch"])
def test_train_report_and_export(plugin, config, tmp_path, policy):
    result = train(config(policy, out=tmp_path / "run")).result
    assert result["backbone"]["name"] == "tinynet"
    assert result["policy"]["frozen_unchanged"]
    assert "tinynet" in write_report(tmp_path / "run").read_text()
    export(ExportConfig(tmp_path / "run", "safetensors", tmp_path / "exported.safetensors"))
    assert (tmp_path / "exported.safetensors").is_file()


def test_the_feature_cache_changes_nothing_and_its_key_covers_weights_and_code(plugin, config, tmp_path):
    cached = config("linear_probe")
    uncached = replace(cached, cache=replace(cached.cache, cache=False))
    first, second, plain = (train(c).result["test"] for c in (cached, cached, uncached))
    assert first == second == plain
    save_file(load("tinynet", random_init=True, seed=6).network.state_dict(), tmp_path / "tinynet.safetensors")
    assert train(cached).result["test"] == train(uncached).result["test"] != first
    before = load("tinynet").code_digest
    plugin.write_text(PLUGIN.replace(".relu()", ".tanh()"))
    assert load("tinynet").code_digest == before  # this process runs the old code
    plugins._files.clear()
    del registry.BACKBONES["tinynet"]
    plugins.load_plugin(str(plugin))
    assert load("tinynet").code_digest != before


def test_adapt(plugin, folder):
    steps = StepsConfig(epochs=1, steps=2, batch_size=24, augment="none", device="cpu", workers=1)
    shift, method = ShiftConfig(str(folder), ("plain",), "striped"), MethodConfig(("mcc",), policy="partial:1")
    result = adapt(AdaptConfig(shift, method, backbone=BackboneConfig("tinynet"), steps=steps)).result
    assert result["backbone"]["name"] == "tinynet"
    assert result["policy"]["frozen_unchanged"]


def test_a_run_that_is_interrupted_resumes_to_the_same_bits(plugin, config, tmp_path):
    check_resuming(config, tmp_path)


def test_a_saved_run_without_its_plugin_is_one_line_that_names_the_flag(plugin, config, tmp_path):
    train(config(out=tmp_path / "run"))
    assert checkpoint.load_models(tmp_path / "run")
    del registry.BACKBONES["tinynet"]
    with pytest.raises(TransferError, match=r"unknown backbone 'tinynet'.*--plugin MODULE") as error:
        checkpoint.load_models(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_the_command_line(plugin, folder, tmp_path):
    words = ["train", "--data", str(folder), "--backbone", "tinynet", "--policy", "partial:1"]
    words += ["--epochs", "1", "--device", "cpu", "--workers", "1", "--no-report", "--out", str(tmp_path / "run")]
    done = run_command(tmp_path, *words, "--plugin", plugin.name)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["backbone"]["name"] == "tinynet"
    assert "tinynet" in run_command(tmp_path, "backbones", "tinynet", "--plugin", plugin.name).stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["run"]["plugin"] == [plugin.name]
    assert done.stdout.endswith(f"IMAGE... --plugin {plugin.name}\n")
    assert run_command(tmp_path, "evaluate", "run", "--plugin", plugin.name).returncode == 0
    for refused in (run_command(tmp_path, "evaluate", "run"), run_command(tmp_path, *words, "--resume")):
        assert refused.returncode == 2
        assert refused.stderr.startswith("transfer: ")
        assert "unknown backbone 'tinynet'" in refused.stderr
        assert refused.stderr.endswith(f"was started with a plugin: pass --plugin {plugin.name}\n")
