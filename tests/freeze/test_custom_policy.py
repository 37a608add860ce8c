"""A policy defined outside the package, in one file given as a plugin, does all that a built-in policy does."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from plugin_runs import check_resuming, run_without_and_with

from transfer.adaptation.adapt import adapt
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.commands import ExportConfig
from transfer.config.train import BackboneConfig, DataConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.formats import export
from transfer.freeze import POLICIES, FreezePolicy
from transfer.report.page import write_report
from transfer.runtime import plugins
from transfer.training.train import train

PLUGIN = '''
"""Train every N-th stage, counted from the top."""

from dataclasses import dataclass

from transfer import FreezePolicy, register_policy


@register_policy
@dataclass(frozen=True)
class EveryNth(FreezePolicy):
    step: int = 2

    name = "every_nth"
    summary = "every N-th stage from the top (default 2)"
    usage = "every_nth[:N]"

    @property
    def argument(self):
        return str(self.step)

    @classmethod
    def from_argument(cls, argument):
        if argument is None:
            return cls()
        if not argument.isdigit() or not int(argument):
            raise ValueError("write a positive number, such as every_nth:2")
        return cls(int(argument))

    def phases(self, backbone, build):
        return (build("every n-th", range(len(backbone.stages) - 1, -1, -self.step)),)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin's file, loaded; its policy is forgotten after the test."""
    file = tmp_path / "every_nth_plugin.py"
    file.write_text(PLUGIN)
    monkeypatch.setattr(plugins, "_files", {})
    plugins.load_plugin(str(file))
    yield file
    del POLICIES["every_nth"]
    sys.modules.pop("every_nth_plugin", None)


@pytest.fixture
def config(folder: Path) -> Callable[..., TrainConfig]:
    return partial(_configure, str(folder))


def _configure(data: str, policy: str = "every_nth", **run: Any) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(data),
        backbone=BackboneConfig("glyphnet"),
        policy=PolicyConfig(policy),
        learn=LearnConfig(epochs=2, augment="none", device="cpu", workers=1),
        run=RunConfig(**run),
    )


def test_it_is_parsed_like_a_built_in_policy(plugin):
    assert str(FreezePolicy.parse("every_nth")) == "every_nth:2"
    assert FreezePolicy.parse("truncate:1+every_nth:3").dropped == 1
    with pytest.raises(TransferError, match="policy 'every_nth:0': write a positive number, such as every_nth:2"):
        FreezePolicy.parse("every_nth:0")
    with pytest.raises(TransferError, match="did you mean 'every_nth'"):
        FreezePolicy.parse("every_nht")


def test_train_report_and_export(plugin, config, tmp_path):
    result = train(config(out=tmp_path / "run")).result
    (phase,) = result["policy"]["phases"]
    assert [stage["train"] for stage in phase["stages"]] == ["all", "none", "all", "none", "all"]
    assert result["policy"]["name"] == "every_nth:2"
    assert result["policy"]["frozen_unchanged"]
    assert "every_nth:2" in write_report(tmp_path / "run").read_text()
    export(ExportConfig(tmp_path / "run", "safetensors", tmp_path / "exported.safetensors"))
    assert (tmp_path / "exported.safetensors").is_file()


def test_the_feature_cache_changes_nothing(plugin, config):
    """truncate:1 opens layers 3 and 1 and every_nth:9 the last one alone, so that a trunk is cached."""
    cached = config("every_nth:9")
    uncached = replace(cached, cache=replace(cached.cache, cache=False))
    results = [train(c).result for c in (cached, cached, uncached)]
    assert results[0]["policy"]["phases"][0]["stages"][3]["train"] == "none"
    assert results[0]["test"] == results[1]["test"] == results[2]["test"]


def test_adapt(plugin, folder):
    steps = StepsConfig(epochs=1, steps=2, batch_size=24, augment="none", device="cpu", workers=1)
    shift, method = ShiftConfig(str(folder), ("plain",), "striped"), MethodConfig(("mcc",), policy="every_nth:3")
    result = adapt(AdaptConfig(shift, method, BackboneConfig("glyphnet"), steps)).result
    assert result["policy"]["name"] == "every_nth:3"
    assert result["policy"]["frozen_unchanged"]


def test_a_run_that_is_interrupted_resumes_to_the_same_bits(plugin, config, tmp_path):
    check_resuming(config, tmp_path)


def test_the_command_line_runs_it_and_names_the_flag_without_it(plugin, folder, tmp_path):
    argv = ["train", "--data", str(folder), "--backbone", "glyphnet"]
    argv += ["--policy", "every_nth", "--epochs", "1", "--device", "cpu", "--workers", "1", "--no-report"]
    argv += ["--out", str(tmp_path / "run")]
    error = run_without_and_with(plugin, argv)
    assert error.startswith("transfer: unknown policy 'every_nth'")
    assert "--plugin MODULE" in error
    assert json.loads((tmp_path / "run" / "result.json").read_text())["policy"]["name"] == "every_nth:2"
    assert f"pass --plugin {plugin.name}" in run_command(tmp_path, *argv, "--resume").stderr
    resumed = run_command(tmp_path, *argv, "--resume", "--plugin", str(plugin))
    assert "already finished" in resumed.stdout, resumed.stderr
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        assert list(csv.DictReader(file))
