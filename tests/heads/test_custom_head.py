"""Head kinds defined outside the package, in one file given as a plugin, do all that built-in kinds do."""

import csv
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin_runs import assert_same_files, run_without_and_with
from safetensors import safe_open

from transfer.config.commands import EvaluateConfig, ExportConfig
from transfer.config.train import TrainConfig
from transfer.data import target_columns
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.predict import predict
from transfer.formats import export
from transfer.heads import find_head_kind, register_head, registry
from transfer.heads.kind import HeadKind
from transfer.report.console.run_text import run_text
from transfer.report.page import write_report
from transfer.runs import checkpoint
from transfer.runtime import plugins, signals
from transfer.training.resume import FitCheckpoints
from transfer.training.train import train

PLUGIN = '''
"""A count by Poisson regression, and an ordered class by cumulative logits (McCullagh 1980)."""

import numpy as np
import torch
from torch.nn import functional as F

from transfer import ClassHeadKind, HeadKind, register_head


@register_head
class CountHead(HeadKind):
    name = "count"
    summary = "a count, by Poisson regression"
    convex = True
    main_score = "negative_mae"
    score_labels = {"mae": "mean absolute error", "negative_mae": "negative mean absolute error"}
    output_note = "exp(output) is the expected count"

    def losses(self, spec, output, target, *, smoothing, loss):
        return F.poisson_nll_loss(output, target.float(), reduction="none")

    def predictions(self, spec, output):
        return output.float().exp()

    def metrics(self, target, predictions, *, intervals=True):
        rows = target.known
        if not rows.any():
            return {"n": 0}
        mae = float(np.abs(predictions[rows] - target.values[rows]).mean())
        return {"mae": mae, "negative_mae": -mae, "n": int(rows.sum())}


@register_head
class OrdinalHead(ClassHeadKind):
    name = "ordinal"
    summary = "one of several ordered classes"

    def outputs(self, spec):
        return len(spec.classes) - 1

    def losses(self, spec, output, target, *, smoothing, loss):
        above = target[:, None] > torch.arange(output.shape[1], device=output.device)
        return F.binary_cross_entropy_with_logits(output, above.float(), reduction="none").sum(1)

    def predictions(self, spec, output):
        above = F.pad(output.float().sigmoid().cummin(1).values, (1, 1), value=0.0)
        above[:, 0] = 1.0
        return above[:, :-1] - above[:, 1:]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin's file, loaded; its kinds are forgotten after the test."""
    file = tmp_path / "count_plugin.py"
    file.write_text(PLUGIN)
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    monkeypatch.setattr(registry, "COLUMN_READERS", dict(target_columns.COLUMN_READERS))
    monkeypatch.setattr(target_columns, "COLUMN_READERS", registry.COLUMN_READERS)
    monkeypatch.setattr(plugins, "_files", {})
    before = set(sys.modules)
    plugins.load_plugin(str(file))
    yield file
    for name in set(sys.modules) - before:
        if name.startswith("count_plugin"):
            del sys.modules[name]


@pytest.fixture
def manifest(images: ImageTable, tmp_path: Path) -> Path:
    """The tiny set with two further columns: stripes, a count, and warmth, an ordered class with numbers for names."""
    file = tmp_path / "things.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "object", "domain", "stripes", "warmth"])
        for row, path in enumerate(images.paths):
            domain, colour = images.domains[images.domain[row]], images.objects[images.object[row]]
            count = "" if row % 11 == 0 else str(4 * images.domain[row])
            writer.writerow([path, colour, domain, count, "123"[images.object[row]]])
    return file


@pytest.fixture
def make(config: Callable[..., TrainConfig], manifest: Path) -> Callable[..., TrainConfig]:
    def made(**settings: Any) -> TrainConfig:
        targets = settings.pop("targets", ("stripes:count", "warmth:ordinal"))
        return config(data=str(manifest), targets=targets, workers=1, **settings)

    return made


def read_predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_evaluate_predict_report_and_export(plugin, make, manifest, images, tmp_path):
    out = tmp_path / "run"
    result = train(make(policy="partial:1", out=out, report=True)).result
    assert set(result["test"]) == {"object", "domain", "stripes", "warmth"}
    assert {"mae", "negative_mae"} < set(result["test"]["stripes"])
    assert {"accuracy", "confusion"} < set(result["test"]["warmth"])
    assert result["policy"]["frozen_unchanged"]
    rows = read_predictions(out)
    assert all(float(row["stripes_predicted"]) > 0 for row in rows)
    assert {row["warmth_predicted"] for row in rows} <= {"1", "2", "3"}

    assert "mean absolute error" in write_report(out).read_text()
    assert "mae" in run_text(result)

    again = evaluate(EvaluateConfig(out))
    assert again["test"]["stripes"] == pytest.approx(result["test"]["stripes"])
    assert again["test"]["warmth"]["confusion"] == result["test"]["warmth"]["confusion"]
    elsewhere = evaluate(EvaluateConfig(out, data=str(manifest)))
    assert elsewhere["test"]["warmth"]["n"] == len(images)

    models = checkpoint.load_models(out)
    answer = next(predict(models, [rows[0]["path"]]))
    assert answer["stripes"] == pytest.approx(float(rows[0]["stripes_predicted"]), rel=1e-4)
    assert answer["warmth"] == rows[0]["warmth_predicted"]

    export(ExportConfig(out, "safetensors", tmp_path / "exported.safetensors"))
    with safe_open(tmp_path / "exported.safetensors", "pt") as opened:
        about = json.loads(opened.metadata()["transfer"])["heads"]
    assert about["stripes"] == {"kind": "count", "classes": [], "output": "exp(output) is the expected count"}
    most = max(1.0, *(float(row["stripes_predicted"]) for row in rows))  # counts are no probabilities
    assert export(ExportConfig(out, "torch_export", tmp_path / "exported.pt2")).difference < 1e-4 * most


def test_the_linear_probe_solves_what_is_convex_and_trains_the_rest(plugin, make):
    solved = train(make(policy="linear_probe", targets=("stripes:count",))).result
    assert set(solved["epochs"]["model"][0]) == {"object", "domain", "stripes"}
    assert solved["test"]["stripes"]["mae"] < 1
    trained = train(make(policy="linear_probe")).result
    assert isinstance(trained["epochs"]["model"][0], int)


def test_the_feature_cache_changes_nothing(plugin, make):
    first, second = (train(make(policy="linear_probe")).result["test"] for _ in range(2))
    uncached = train(make(policy="linear_probe", cache=False)).result["test"]
    assert first == second == uncached


def test_a_finished_run_resumes_and_a_loaded_one_needs_the_plugin(plugin, make, tmp_path, monkeypatch):
    config = make(policy="linear_probe", out=tmp_path / "run", targets=("stripes:count",))
    result = train(config).result
    assert train(replace(config, run=replace(config.run, resume=True))).result["test"] == result["test"]
    monkeypatch.delitem(registry._KINDS, "count")
    with pytest.raises(TransferError, match=r"unknown head kind 'count'.*--plugin"):
        checkpoint.load_models(tmp_path / "run")


def test_a_run_that_is_interrupted_resumes_to_the_same_bits(plugin, make, tmp_path, monkeypatch):
    def made(name: str, **run: Any) -> TrainConfig:
        return make(policy="partial:1", out=tmp_path / name, report=False, **run)

    train(made("whole"))
    step, count = FitCheckpoints.step, itertools.count(1)

    def interrupt(self: FitCheckpoints, save: Callable[[], None], *, end: bool = False) -> None:
        if next(count) == 4:
            signals._received.append(signal.SIGTERM)
        step(self, save, end=end)

    monkeypatch.setattr(FitCheckpoints, "step", interrupt)
    with pytest.raises(signals.StoppedBySignal):
        train(made("pieces"))
    train(made("pieces", resume=True))
    assert_same_files(tmp_path)


def test_several_seeds_have_mean_scores(plugin, make, tmp_path):
    result = train(make(policy="linear_probe", seeds=(0, 1), epochs=1, out=tmp_path / "run")).result
    assert result["test"]["stripes"]["mae"] == pytest.approx(
        np.mean([seed["test"]["stripes"]["mae"] for seed in result["seeds"]])
    )


def test_a_policy_that_is_always_solved_refuses_a_loss_that_is_not_convex(plugin, make):
    with pytest.raises(TransferError, match="kinds with a convex loss"):
        train(make(policy="stage_probes"))


def test_the_command_line_runs_it_and_names_the_kinds_without_it(plugin, manifest, tmp_path):
    argv = ["train", "--data", str(manifest), "--backbone", "glyphnet", "--targets", "stripes:count"]
    argv += ["--device", "cpu", "--workers", "1", "--no-report", "--out", str(tmp_path / "run")]
    error = run_without_and_with(plugin, argv)
    assert error.startswith("transfer: unknown kind 'count' of target 'stripes'")
    assert "--plugin" in error
    assert "stripes" in json.loads((tmp_path / "run" / "result.json").read_text())["test"]


def test_what_is_registered_is_found_with_its_facts(plugin):
    assert find_head_kind("count").summary == "a count, by Poisson regression"
    assert registry.head_summaries()["count"] == "a count, by Poisson regression"
    with pytest.raises(TransferError, match="did you mean 'count'"):
        find_head_kind("counts")


@pytest.mark.parametrize(("name", "message"), [("", "name without"), ("a:b", "name without"), ("binary", "already")])
def test_a_bad_name_is_refused(name, message):
    with pytest.raises(TransferError, match=message):
        register_head(type("Bad", (HeadKind,), {"name": name}))


def test_names_and_summaries_need_no_torch():
    code = "import sys; from transfer.heads import head_summaries; print(head_summaries())"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_probabilities_of_the_ordinal_kind_sum_to_one(plugin):
    kind = find_head_kind("ordinal")
    p = kind.predictions(None, torch.randn(6, 3)).numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (p >= 0).all()
