"""Float and 16-bit images: one scale for a set, recorded with the model, for every command."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

import transfer
from transfer.config.adapt import AdaptConfig, MethodConfig, RunConfig, ShiftConfig, StepsConfig
from transfer.config.commands import EvaluateConfig, ExportConfig
from transfer.config.shared import BackboneConfig
from transfer.data.images.batches import ImageBatches
from transfer.estimator import BackboneFeatures, TransferClassifier
from transfer.evaluation.evaluate import evaluate
from transfer.formats.write import export
from transfer.runs import checkpoint
from transfer.training.train import train

PEAKS = (1.0, 1.03)


def pattern(label, peak, seed):
    """A bright square or stripes on grey, whose largest value is `peak`."""
    values = np.full((40, 40), 0.2)
    values[(slice(10, 30), slice(10, 30)) if label == "box" else (slice(None), slice(None, None, 5))] = 0.8
    values += np.random.default_rng(seed).random(values.shape) * 0.1
    return (values / values.max() * peak).astype(np.float32)


@pytest.fixture
def floats(tmp_path):
    """Return a function that writes split folders of float images with the given peaks; the folder."""

    def write(name="set", peaks=PEAKS, test_peaks=PEAKS, parts=("train", "val", "test")):
        for part in parts:
            for place, label in enumerate(("box", "stripes")):
                for i in range(6):
                    file = tmp_path / name / part / label / f"{i}.tif"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    peak = (test_peaks if part == "test" else peaks)[i % 2]
                    Image.fromarray(pattern(label, peak, 1000 * len(part) + 100 * place + i)).save(file)
        return tmp_path / name

    return write


def brightness(models, paths):
    """The mean grey level of each image as a model sees it."""
    backbone = next(iter(models.values())).backbone
    return np.concatenate(
        [images.float().mean((1, 2, 3)).numpy() for _, images in ImageBatches(paths, backbone.preprocessing)]
    )


def test_one_scale_is_chosen_said_and_saved(config, floats, tmp_path, caplog):
    root, out = floats(), tmp_path / "run"
    with caplog.at_level(logging.INFO):
        run = train(config(data=str(root), out=out))
    line = "float images from {low:g} to 1.03: read as 0 to 1"
    low = min(
        pattern(label, peak, 5000 + 100 * k + i).min()
        for k, label in enumerate(("box", "stripes"))
        for i, peak in enumerate(PEAKS * 3)
    )
    assert any(line.format(low=low) in message for message in caplog.messages)
    assert line.format(low=low) in run.result["notes"]
    saved = checkpoint.load_models(out)
    assert ("float32", 0.0, 1.0) in saved[""].backbone.preprocessing.levels
    files = [str(file) for file in sorted((root / "test" / "box").iterdir())]
    seen = brightness(saved, files)
    assert seen.max() / seen.min() < 1.1  # every second picture was black before
    new = tmp_path / "new.tif"
    Image.fromarray(pattern("box", 0.5, 9)).save(new)
    assert brightness(saved, [str(new)])[0] == pytest.approx(seen.mean() / 2, rel=0.1)


def test_predict_evaluate_and_export_read_new_images_by_the_recorded_scale(config, floats, tmp_path):
    root, out = floats(peaks=(200.0, 255.0), test_peaks=(200.0, 255.0)), tmp_path / "run"
    run = train(config(data=str(root), out=out))
    assert ("float32", 0.0, 255.0) in run.models[""].backbone.preprocessing.levels
    assert evaluate(EvaluateConfig(out))["test"]["object"] == run.result["test"]["object"]
    other = floats("other", peaks=(100.0, 100.0), test_peaks=(100.0, 100.0), parts=("test",))
    found = evaluate(EvaluateConfig(out, data=str(other)))
    assert not any("by their type" in note for note in found["notes"])
    one = other / "test" / "box" / "0.tif"
    arrays = transfer.load_run(out).predict([Image.open(one)])
    assert arrays[0]["object_probability"] == transfer.load_run(out).predict(one)[0]["object_probability"]
    assert "read float32 from 0 to 255 as 0 to 255" in export(ExportConfig(out, format="safetensors")).preparation


def test_test_images_choose_nothing(config, floats):
    """Their largest value changes neither the recorded scale nor a weight."""
    runs = [train(config(data=str(floats(f"set{peak:g}", test_peaks=(peak, peak))))) for peak in (1.0, 900.0)]
    first, second = (run.models[""] for run in runs)
    assert first.backbone.preprocessing == second.backbone.preprocessing
    assert all(tensor.equal(second.state_dict()[name]) for name, tensor in first.state_dict().items())


def test_a_model_of_other_images_reads_deep_ones_by_their_type(config, floats, tmp_path):
    run = train(config(out=tmp_path / "run"))
    assert run.models[""].backbone.preprocessing.levels == ()
    files = sorted(floats().rglob("test/*/*.tif"))
    table = tmp_path / "labels.csv"
    table.write_text("path,object\n" + "".join(f"{file},red\n" for file in files))
    found = evaluate(EvaluateConfig(tmp_path / "run", data=str(table)))
    assert any("trained without 16-bit, integer or float images" in note for note in found["notes"])


def test_a_resumed_run_has_the_same_scale(config, floats, tmp_path):
    root, out = floats(), tmp_path / "run"
    first = train(config(data=str(root), out=out))
    again = train(config(data=str(root), out=out, resume=True))
    assert again.models[""].backbone.preprocessing == first.models[""].backbone.preprocessing


def test_adaptation_reads_both_domains_on_one_scale(floats, tmp_path, weights_store, monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))
    for domain, peaks in (("day", (200.0, 255.0)), ("night", (20.0, 30.0))):
        floats(f"both/{domain}", peaks=peaks, parts=("train",))
        (tmp_path / "both" / domain / "train").rename(tmp_path / "both" / domain / "images")
    shift = ShiftConfig(str(tmp_path / "both"), source=("day",), target="night")
    made = AdaptConfig(
        shift,
        backbone=BackboneConfig("test_resnet"),
        method=MethodConfig(method=("source_only",)),
        steps=StepsConfig(epochs=1, device="cpu"),
        run=RunConfig(out=tmp_path / "run"),
    )
    run = transfer.adapt(made)
    assert ("float32", 0.0, 255.0) in checkpoint.load_models(tmp_path / "run")[""].backbone.preprocessing.levels
    assert any(
        "read as 0 to 255" in note for note in json.loads((tmp_path / "run" / "result.json").read_text())["notes"]
    )
    assert any("read as 0 to 255" in note for note in run.result["notes"])


def test_the_estimators_read_images_on_the_scale_of_what_was_fitted(weights_store, monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))
    labels = ["box", "stripes"] * 6
    images = [Image.fromarray(pattern(label, (200.0, 255.0)[i % 2], i)) for i, label in enumerate(labels)]
    fitted = TransferClassifier("test_resnet", device="cpu", epochs=1).fit(images, labels)
    levels = fitted.models_[""].backbone.preprocessing.levels
    assert ("float32", 0.0, 255.0) in levels
    assert fitted.score(images, labels) > 0.9
    features = BackboneFeatures("test_resnet", device="cpu").fit(images)
    assert features.model_.backbone.preprocessing.levels == levels
    dark, bright = (features.transform([Image.fromarray(pattern("box", peak, 0))]) for peak in (1.0, 255.0))
    assert np.abs(dark - bright).max() > 1e-3  # each on its own scale they would be one picture
    assert BackboneFeatures("test_resnet", device="cpu").fit(None).model_.backbone.preprocessing.levels == ()
