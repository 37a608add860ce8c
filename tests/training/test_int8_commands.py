"""``--engine int8`` in each command: what trains or measures on images calibrates on them, others refuse it."""

import csv

import numpy as np
import pytest

from transfer.adaptation.adapt import adapt
from transfer.backbones.engines import calibration
from transfer.cli.main import main
from transfer.estimator.features import BackboneFeatures
from transfer.runs.checkpoint import load_models
from transfer.training.train import train


def test_adapt_calibrates_on_no_test_image_and_reports_the_cost(adapt_config, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "_calibrations", {})
    seen = []
    batches = calibration.ImageBatches

    def watch(paths, *arguments, **options):
        seen.extend(paths[options["order"]].tolist())
        return batches(paths, *arguments, **options)

    monkeypatch.setattr(calibration, "ImageBatches", watch)
    result = adapt(adapt_config(engine="int8", out=tmp_path / "run")).result
    assert load_models(tmp_path / "run")[""].engine == "int8"
    assert any(note.startswith("int8 trunk: ") for note in result["notes"])
    assert result["int8"]["calibrated_on"] == len(seen)
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        assert not {row["path"] for row in csv.DictReader(file)} & {*seen}


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["advise"],
        ["lr-find", "--policy", "partial:1"],
        ["search", "--trials", "1", "--epochs", "1"],
        ["train", "--policy", "auto", "--epochs", "1"],
    ],
    ids=lambda command: command[0],
)
def test_commands_on_images(config, folder, tmp_path, command):
    config()  # finds the weights
    name, *options = command
    out = [] if name in ("lr-find", "advise") else ["--out", str(tmp_path / "out")]
    assert main([name, str(folder), "--engine", "int8", "--backbone", "test_resnet", *options, *out]) == 0


def test_features_of_the_estimator(config, images):
    config()
    paths = list(images.paths)
    int8, float32 = (
        BackboneFeatures("test_resnet", engine=engine, device="cpu").fit(paths).transform(paths)
        for engine in ("int8", "onnxruntime")
    )
    assert 1e-4 < np.linalg.norm(int8 - float32) / np.linalg.norm(float32) < 0.5


def test_a_run_without_a_calibration_cannot_predict_with_int8(config, images, tmp_path, capsys):
    train(config(engine="torch", out=tmp_path / "run"))
    assert main(["predict", str(tmp_path / "run"), str(images.paths[0]), "--engine", "int8"]) == 2
    assert "--engine int8 needs a calibration, which transfer train and adapt measure" in capsys.readouterr().err


def test_an_export_says_that_it_is_compared_with_float32(config, tmp_path, capsys):
    train(config(engine="int8", out=tmp_path / "run"))
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "model.onnx")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("predictions equal")]
    assert "predictions equal the run's in float32 (the run itself computes its frozen layers with int8) to w" in line
