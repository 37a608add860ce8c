import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.adaptation.adapt import adapt
from transfer.cli.main import main
from transfer.config.commands import ExportConfig
from transfer.config.train import BackboneConfig, DataConfig, RunConfig, TrainConfig
from transfer.errors import TransferError
from transfer.formats import export, int8_comparison, to_onnx_int8
from transfer.formats.run_images import find_training_images
from transfer.heads import HeadSpec
from transfer.runs import checkpoint
from transfer.training.train import train

onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")


def preprocessing_of(run):
    return next(iter(checkpoint.load_models(run).values())).backbone.preprocessing


@pytest.fixture
def fast(monkeypatch):
    """A network this small is not faster with int8."""
    monkeypatch.setattr(int8_comparison, "measure_speed", lambda *a: 1.5)


def test_the_file_has_integers_and_says_what_was_measured(finished, fast, own):
    exported = export(ExportConfig(finished, "onnx-int8", max_loss=0.99))
    assert exported.files == [finished.parent / "run-int8.onnx"]
    assert exported.difference is None
    parts = [line.split(",")[1] for line in (finished / "images.csv").read_text().splitlines()]
    assert any(f"accuracy on {parts.count('test')} test images: int8" in line for line in exported.lines())
    content = exported.files[0].read_bytes()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    inside = session.get_modelmeta().custom_metadata_map
    about = json.loads(inside["transfer"])
    assert json.loads(inside["classes"])["object"] == ["blue", "green", "red"]
    assert about["quantisation"]["calibrated_on"] == f"{parts.count('train')} training images"
    assert about["quantisation"]["accuracy"].keys() == {"object", "domain"}
    (batch, *_) = find_training_images(finished, preprocessing_of(finished), 16).read("")
    for images in (batch, batch[:1]):
        (found,) = session.run(["object_probabilities"], {"images": images})
        np.testing.assert_allclose(found, own(finished, torch.from_numpy(images))["object"], atol=0.2)


def test_weights_are_integers_per_channel_but_for_the_first_layers_and_heads(finished, fast):
    model = onnx.load(export(ExportConfig(finished, "onnx-int8", max_loss=0.99)).files[0])
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    from_integers = [made.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    assert from_integers == [False] * 3 + [True] * (len(convolutions) - 3)
    assert all(node.input[1] in weights for node in model.graph.node if node.op_type == "Gemm")
    last = next(node for node in model.graph.node if convolutions[-1].input[1] in node.output)
    values, scales = weights[last.input[0]], weights[last.input[1]]
    assert values.dtype == np.int8
    assert scales.shape == values.shape[:1]
    assert abs(values.astype(int)).max() <= 64  # 7 bits
    softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert [made[node.input[0]] for node in softmax] == ["Gemm", "Gemm"]
    assert {output for node in softmax for output in node.output} < {output.name for output in model.graph.output}


def watch_calibration(monkeypatch):
    """Return the list that collects the paths of the images that are calibrated on."""
    seen = []

    def find(*arguments):
        images = find_training_images(*arguments)
        seen.extend(images.paths)
        return images

    monkeypatch.setattr(to_onnx_int8, "find_training_images", find)
    return seen


def test_images_of_no_other_split_are_calibrated_on(finished, fast, monkeypatch):
    seen = watch_calibration(monkeypatch)
    export(ExportConfig(finished, "onnx-int8", max_loss=0.99))
    rows = [line.split(",") for line in (finished / "images.csv").read_text().splitlines()[1:]]
    assert {row[1] for row in rows if row[0] in seen} == {"train"}


def test_a_loss_or_no_gain_in_speed_is_refused(finished, monkeypatch, capsys):
    monkeypatch.setattr(int8_comparison, "measure_speed", lambda *a: 0.9)
    with pytest.raises(TransferError, match=r"0\.90 times as many images/s"):
        export(ExportConfig(finished, "onnx-int8", max_loss=0.99))
    assert main(["export", str(finished), "--format", "onnx-int8", "--max-loss", "0.99"]) == 2
    assert "nothing is written" in capsys.readouterr().err
    assert not (finished.parent / "run-int8.onnx").exists()


def test_a_run_that_was_only_saved_has_no_images(saved):
    with pytest.raises(TransferError, match=r"has no images\.csv"):
        export(ExportConfig(saved(), "onnx-int8"))


@pytest.mark.slow
def test_real_weights_are_as_accurate_and_faster(shared_weights, folder, tmp_path):
    config = TrainConfig(
        DataConfig(str(folder)), BackboneConfig("mobilenetv2_100"), run=RunConfig(out=tmp_path / "run")
    )
    train(config)
    exported = export(ExportConfig(tmp_path / "run", "onnx-int8"))
    assert exported.files[0].stat().st_size < 3.5e6
    assert "float32 9." in exported.notes[-1]


def test_other_heads_are_refused():
    with pytest.raises(TransferError, match="one class an image, and the head age is regression"):
        to_onnx_int8._check_heads([HeadSpec("object", "softmax", ("a", "b")), HeadSpec("age", "regression")])
    with pytest.raises(TransferError, match="one class an image, and the head tags is multilabel"):
        to_onnx_int8._check_heads([HeadSpec("tags", "multilabel", ("a", "b"))])


@pytest.mark.parametrize(("protocol", "calibrated"), [("transductive", {"plain"}), ("inductive", {"plain", "striped"})])
def test_an_adapted_run_is_calibrated_on_what_it_was_trained_on(
    protocol, calibrated, adapt_config, tmp_path, fast, monkeypatch
):
    adapt(adapt_config(out=tmp_path / "run", protocol=protocol))
    seen = watch_calibration(monkeypatch)
    exported = export(ExportConfig(tmp_path / "run", "onnx-int8", max_loss=0.99))
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        tested = [row["path"] for row in csv.DictReader(file)]
    assert any(f"object accuracy on {len(tested)} test images: int8" in line for line in exported.lines())
    assert not {*seen} & {*tested}
    assert {Path(path).parts[-3] for path in seen} == calibrated


def test_an_adapted_run_without_target_labels_is_refused(adapt_config, folder, tmp_path):
    target = tmp_path / "target"
    shutil.copytree(folder / "striped" / "red", target)
    adapt(adapt_config(out=tmp_path / "run", data=str(folder / "plain"), source=(), target="", target_images=target))
    with pytest.raises(TransferError, match="no test image has a label"):
        export(ExportConfig(tmp_path / "run", "onnx-int8"))


def test_a_run_with_an_int8_trunk_is_exported_in_float32(config, folder, tmp_path, capsys):
    train(config(data=str(folder), engine="int8", out=tmp_path / "run"))
    assert main(["export", str(tmp_path / "run"), "--format", "onnx"]) == 0
    assert "the run itself computes its frozen layers with int8" in capsys.readouterr().out
