"""A method defined outside the package, in one file given as a plugin, does all that a built-in method does."""

import csv
import itertools
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from plugin_runs import run_without_and_with
from saved_runs import read_run

from transfer.adaptation import registry
from transfer.adaptation.adapt import adapt
from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.commands import ExportConfig
from transfer.config.shared import BackboneConfig, RunConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.formats import export
from transfer.report.page import write_report
from transfer.runtime import plugins, signals
from transfer.runtime.signals import StoppedBySignal

PLUGIN = '''
"""The distance between the domains' mean features, in a space that learns to tell the domains apart."""

import numpy as np
from torch import nn

from transfer import register_method
from transfer.adaptation.losses.base import AdaptationLoss, reverse_gradient
from transfer.adaptation.selection.evidence import softmax


class MeanGap(AdaptationLoss):
    def __init__(self, width):
        super().__init__()
        self.project = nn.Linear(width, 4)

    def forward(self, batch):
        source, target = batch.split(self.project(reverse_gradient(batch.features)).tanh())
        return -(source.mean(0) - target.mean(0)).square().sum()


def sharpen(evidence):
    q = softmax(evidence.target_logits) ** 2
    return q / q.sum(1, keepdims=True)


register_method(
    "mean_gap",
    "distance of domain means, after a warm-up",
    losses=lambda width, classes, classifier: [(0.1, MeanGap(width))],
    warmup=0.3,
)
register_method("sharpened", "the classifier's own predictions, sharpened", refine=sharpen)
'''

STEPS = StepsConfig(epochs=3, steps=2, batch_size=24, augment="none", device="cpu", workers=1)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin's file, loaded; its methods are forgotten after the test."""
    file = tmp_path / "mean_gap_plugin.py"
    file.write_text(PLUGIN)
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setattr(plugins, "_files", {})
    before = set(sys.modules)
    plugins.load_plugin(str(file))
    yield file
    for name in set(sys.modules) - before:
        if name.startswith("mean_gap_plugin"):
            del sys.modules[name]


@pytest.fixture
def config(folder: Path) -> Callable[..., AdaptConfig]:
    return partial(_configure, str(folder))


def _configure(data: str, *methods: str, policy: str = "linear_probe", **run: Any) -> AdaptConfig:
    return AdaptConfig(
        ShiftConfig(data, ("plain",), "striped"),
        MethodConfig(methods, policy=policy, bottleneck=16),
        backbone=BackboneConfig("glyphnet"),
        steps=STEPS,
        run=RunConfig(**run),
    )


def test_the_rule_chooses_among_built_in_and_registered_methods(plugin, config, tiny):
    result = adapt(config("source_only", "mean_gap", "sharpened", "mcc"), images=tiny).result
    assert set(result["selection"]["methods"]) == {"source_only", "mean_gap", "sharpened", "mcc"}
    candidates = [name for name in result["selection"]["candidates"] if name.startswith("mean_gap")]
    assert candidates == ["mean_gap, epoch 2", "mean_gap, epoch 3"]  # the first epoch is the warm-up


def test_with_a_trained_tail_report_and_export(plugin, config, tiny, tmp_path):
    run = adapt(config("mean_gap", policy="partial:1", out=tmp_path / "run"), images=tiny)
    assert run.result["policy"]["frozen_unchanged"]
    assert run.result["selection"]["chosen"].startswith("mean_gap, epoch")
    assert "mean_gap" in write_report(tmp_path / "run").read_text()
    export(ExportConfig(tmp_path / "run", "safetensors", tmp_path / "exported.safetensors"))
    assert (tmp_path / "exported.safetensors").is_file()


def test_the_feature_cache_changes_nothing(plugin, config, tiny):
    made = config("mean_gap")
    first, second = (adapt(made, images=tiny, cache=TrunkCache(made.cache)).result for _ in range(2))
    uncached = replace(made, cache=replace(made.cache, cache=False))
    for other in (second, adapt(uncached, images=tiny).result):
        assert other["target"] == first["target"]
        assert other["selection"] == first["selection"]


def test_several_seeds(plugin, config, tiny, tmp_path):
    result = adapt(config("mean_gap", "sharpened", seeds=(0, 1), out=tmp_path / "run"), images=tiny).result
    assert len(result["selection"]["chosen"]) == 2


def test_a_run_that_is_interrupted_resumes_to_the_same_bits(plugin, config, tiny, tmp_path, monkeypatch):
    def made(name: str, **run: Any) -> AdaptConfig:
        return config("sharpened", "mean_gap", policy="partial:1", out=tmp_path / name, **run)

    adapt(made("whole"), images=tiny)
    asked, calls = signals.stop_requested, itertools.count(1)

    def ask() -> Any:
        if next(calls) % 5 == 0:
            signals._received.append(signal.SIGTERM)
        return asked()

    monkeypatch.setattr(signals, "stop_requested", ask)
    interruptions = 0
    while interruptions < 30:
        try:
            adapt(made("pieces", resume=True), images=tiny)
            break
        except StoppedBySignal:
            interruptions += 1
    assert 2 <= interruptions < 30
    assert read_run(tmp_path / "pieces") == read_run(tmp_path / "whole")


def test_the_command_line_runs_it_and_names_the_flag_without_it(plugin, folder, tmp_path):
    argv = ["adapt", "--data", str(folder), "--backbone", "glyphnet", "--source", "plain", "--target", "striped"]
    argv += ["--method", "source_only,mean_gap", "--epochs", "2", "--steps", "2", "--bottleneck", "16", "--no-report"]
    argv += ["--device", "cpu", "--workers", "1", "--out", str(tmp_path / "run")]
    error = run_without_and_with(plugin, argv)
    assert error.startswith("transfer: unknown method 'mean_gap'")
    assert "--plugin MODULE" in error
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert set(result["selection"]["methods"]) == {"source_only", "mean_gap"}
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == result["images"]["test"]


def test_without_the_plugin_the_method_is_unknown():
    with pytest.raises(TransferError, match=r"unknown method 'mean_gap'.*--plugin"):
        registry.find_method("mean_gap")
