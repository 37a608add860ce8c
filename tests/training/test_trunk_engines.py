"""Runs whose frozen stages an engine computes keep the laws: frozen parts stay, caching and resuming change no bit."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved_runs import read_run

from transfer.backbones.engines import ActivationRanges
from transfer.config.commands import EvaluateConfig, PredictConfig
from transfer.config.train import TrainConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.finished_run import load_run
from transfer.evaluation.predict import predict_command
from transfer.feature_cache.key import describe_activation
from transfer.runs.checkpoint import load_models
from transfer.training.train import train

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
pytestmark = pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino", "compile", "int8"])
Configured = Callable[..., TrainConfig]


def weights_of(run: Any) -> dict[str, torch.Tensor]:
    return run.models[""].state_dict()


@pytest.mark.parametrize("policy", ["linear_probe", "stage_probes", "partial:2", "truncate:1+partial:1"])
def test_what_is_frozen_stays_and_the_cache_and_workers_change_no_bit(
    config: Configured, policy: str, engine: str
) -> None:
    first = train(config(policy=policy, engine=engine, workers=1))
    assert first.result["policy"]["frozen_unchanged"]
    assert first.models[""].engine == engine
    for other in ({"workers": 3}, {"workers": 2, "cache": False}):
        again = train(config(policy=policy, engine=engine, **other))
        assert all(torch.equal(weights_of(first)[name], tensor) for name, tensor in weights_of(again).items())
        assert first.result["test"] == again.result["test"]


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_predictions_of_the_saved_run_are_those_of_its_test(
    config: Configured, images: ImageTable, tmp_path: Path, policy: str, engine: str
) -> None:
    run = train(config(policy=policy, engine=engine, out=tmp_path / "run", report=False))
    models = load_models(tmp_path / "run")
    assert models[""].engine == engine
    test, predictions = run.tests[0]
    for again in (load_run(tmp_path / "run"), run):
        rows = again.predict(list(test.paths))
        shares = [row["object_probability"] for row in rows]
        assert np.allclose(shares, predictions["object"].max(1), atol=1e-6)
    assert evaluate(EvaluateConfig(tmp_path / "run"))["test"] == run.result["test"]


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1"])
def test_a_stopped_run_resumes_to_the_same_bits(config: Configured, tmp_path: Path, policy: str, engine: str) -> None:
    settings: dict[str, Any] = {"policy": policy, "probe": "trained", "epochs": 3, "engine": engine, "report": False}
    train(config(out=tmp_path / "whole", **settings))

    class Killed(BaseException):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        train(config(out=tmp_path / "run", **settings), on_epoch=kill)
    another = "torch" if engine != "torch" else "openvino"
    with pytest.raises(TransferError, match="has another engine"):
        train(config(out=tmp_path / "run", resume=True, **settings | {"engine": another}))
    train(config(out=tmp_path / "run", resume=True, **settings))
    assert read_run(tmp_path / "run") == read_run(tmp_path / "whole")


def test_engines_share_no_cached_rows(config: Configured, engine: str) -> None:
    model = train(config(engine=engine)).models[""]
    keys = set()
    names = ("torch", "onnxruntime", "openvino", "compile", *(["int8"] if engine == "int8" else []))
    for name in names:
        model.backbone.engine = name
        keys.add(json.dumps(describe_activation(model, model.cut, "float16"), sort_keys=True))
    assert len(keys) == len(names)
    if calibration := model.backbone.calibration:
        name, (low, high) = next(iter(calibration.ranges.items()))
        model.backbone.calibration = ActivationRanges(
            {**calibration.ranges, name: (low, high + 1e-3)}, calibration.images
        )
        keys.add(json.dumps(describe_activation(model, model.cut, "float16"), sort_keys=True))
        assert len(keys) == len(names) + 1  # features of two calibrations are never mixed


def test_an_engine_can_be_chosen_for_a_saved_run(
    config: Configured, images: ImageTable, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(engine=engine, out=tmp_path / "run", report=False))
    found = []
    for name in (None, "torch", "onnxruntime", "openvino"):
        file = tmp_path / f"{name}.jsonl"
        predict_command(PredictConfig(tmp_path / "run", tuple(map(str, images.paths[:6])), out=file, engine=name))
        found.append([json.loads(line)["object"] for line in file.read_text().splitlines()])
    assert all(classes == found[1] for classes in (found if engine != "int8" else found[1:]))


def test_old_runs_keep_torch(tmp_path: Path, engine: str, config: Configured, caplog: pytest.LogCaptureFixture) -> None:
    assert {model.engine for model in load_models(OLD_RUNS / "joint").values()} == {"torch"}
    train(config(engine="torch", epochs=1, out=tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "states", ignore_errors=True)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    del record["backbone"]["engine"]  # as an earlier version wrote it
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    resumed = config(engine=engine, epochs=1, out=tmp_path / "run", resume=True)
    with caplog.at_level(logging.INFO):
        if engine == "torch":
            train(resumed)
        else:
            with pytest.raises(TransferError, match="has another engine"):
                train(resumed)
