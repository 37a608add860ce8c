import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.config.commands import EvaluateConfig
from transfer.config.shared import RunConfig
from transfer.data.image_paths import find_images
from transfer.errors import TransferError
from transfer.evaluation.evaluate import evaluate
from transfer.evaluation.finished_run import load_run
from transfer.evaluation.predict import predict
from transfer.runs import checkpoint
from transfer.training.train import train


def test_classes_that_another_set_spells_otherwise_are_measured_alike(run, folder, tmp_path):
    """Folders of other case change no accuracy; the notes name the spellings."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for red in sorted(other.glob("*/red")):
        red.rename(red.with_name("RED "))
    expected, got = (evaluate(EvaluateConfig(run=run, data=str(data))) for data in (folder, other))
    assert got["test"]["object"]["accuracy"] == expected["test"]["object"]["accuracy"]
    assert got["test"]["object"]["n"] == expected["test"]["object"]["n"]
    assert "object: 'RED ' is read as 'red'" in got["notes"]
    assert not any("is read as" in note for note in expected["notes"])


def test_evaluate_on_the_runs_own_test_images_repeats_its_result(run):
    result = json.loads((run / "result.json").read_text())
    again = evaluate(EvaluateConfig(run))
    for name in ("object", "domain"):
        assert again["test"][name]["accuracy"] == result["test"][name]["accuracy"]
        assert again["test"][name]["n"] == result["test"][name]["n"]


def test_evaluate_on_other_data_matches_classes_by_name(run, folder, tmp_path):
    """A set with one class under another name and one domain: known names count, unknown ones are noted."""
    shutil.copytree(folder / "striped", tmp_path / "other")
    (tmp_path / "other" / "blue").rename(tmp_path / "other" / "azure")
    result = evaluate(EvaluateConfig(run, data=str(tmp_path / "other"), out=tmp_path / "deep" / "result.json"))
    paths = find_images([str(folder / "striped" / c) for c in ("green", "red")])
    right = [row["object"] == Path(row["path"]).parent.name for row in predict(checkpoint.load_models(run), paths)]
    assert result["test"]["object"]["n"] == 16
    assert result["test"]["object"]["accuracy"] == pytest.approx(np.mean(right))
    assert any("images of classes that the model does not know (azure)" in note for note in result["notes"])
    assert json.loads((tmp_path / "deep" / "result.json").read_text()) == json.loads(json.dumps(result))


def test_evaluate_notes_images_that_the_run_may_have_been_trained_on(run, folder, tmp_path):
    tested = len((run / "predictions.csv").read_text().splitlines()) - 1
    (note,) = [note for note in evaluate(EvaluateConfig(run, data=str(folder)))["notes"] if "test images of" in note]
    assert note.startswith(f"{tested} of these images are test images of {run}")
    assert f"the other {48 - tested}:" in note
    shutil.copytree(folder / "plain", tmp_path / "new")
    assert evaluate(EvaluateConfig(run, data=str(tmp_path / "new")))["notes"] == []


def test_evaluate_without_a_known_label(run, folder, tmp_path):
    shutil.copytree(folder / "striped" / "red", tmp_path / "other" / "purple")
    with pytest.raises(TransferError, match="not one image has a label"):
        evaluate(EvaluateConfig(run, data=str(tmp_path / "other")))


def test_no_run_there(tmp_path):
    with pytest.raises(TransferError, match="no run at"):
        evaluate(EvaluateConfig(tmp_path))


def test_sets_are_measured_on_other_images(config, folder, tmp_path):
    run = tmp_path / "run"
    result = train(config(out=run, test=0.25)).result
    assert evaluate(EvaluateConfig(run=run))["uncertainty"] == result["uncertainty"]
    found = evaluate(EvaluateConfig(run=run, data=str(folder)))["uncertainty"]["heads"]["object"]
    assert found["n"] == result["uncertainty"]["heads"]["object"]["n"]
    assert 0 < found["sets"]["0.9"]["coverage"] <= 1


def test_the_accuracy_on_images_without_labels_is_expected(run, folder, tmp_path):
    """A flat folder, a folder of a class that is none, and a manifest without labels read alike."""
    flat, nested, manifest = tmp_path / "flat", tmp_path / "new" / "unlabeled", tmp_path / "new.csv"
    nested.mkdir(parents=True)
    flat.mkdir()
    files = sorted(folder.glob("striped/*/*.png"))
    for number, file in enumerate(files):
        shutil.copy(file, flat / f"{number}.png")
        shutil.copy(file, nested / f"{number}.png")
    manifest.write_text("path,object\n" + "".join(f"{file},\n" for file in files))
    results = [evaluate(EvaluateConfig(run, data=str(data))) for data in (flat, nested.parent, manifest)]
    expected = results[0]["expected_accuracy"]
    assert expected.keys() == {"object"}
    assert expected["object"]["n"] == len(files)
    assert expected["object"]["of"] == "images without labels"
    assert 0 <= expected["object"]["interval"][0] <= expected["object"]["accuracy"]
    assert not any("does not know" in note for note in results[0]["notes"])
    for result in results[1:]:
        assert result["expected_accuracy"]["object"]["accuracy"] == pytest.approx(
            expected["object"]["accuracy"], abs=1e-6
        )
        assert result["test"]["object"]["n"] == 0


def test_an_ensemble_has_an_expected_accuracy(run, config, folder, tmp_path):
    """That of a run with itself is the run's; of two it lies between what both say of the ensemble."""
    manifest = tmp_path / "new.csv"
    manifest.write_text("path,object\n" + "".join(f"{file},\n" for file in sorted(folder.glob("striped/*/*.png"))))
    train(replace(config(), run=RunConfig(out=tmp_path / "other", seed=1)))
    for more, names in (((run,), ("accuracy", "interval", "alarm")), ((tmp_path / "other",), ())):
        result = evaluate(EvaluateConfig(run, more, data=str(manifest)))
        found = result["expected_accuracy"]["object"]
        alone = evaluate(EvaluateConfig(run, data=str(manifest)))["expected_accuracy"]["object"]
        assert {name: found[name] for name in names} == {name: alone[name] for name in names}
        assert found["interval"][0] <= found["accuracy"] <= found["interval"][1]
        assert "uncertainty" not in result  # sets are those of one run
    (tmp_path / "other" / "uncertainty.safetensors").unlink()
    with pytest.raises(TransferError, match="other has no expected accuracy: this needs a run"):
        evaluate(EvaluateConfig(run, (tmp_path / "other",), data=str(manifest)))


def test_some_images_labelled_and_others_not(run, folder, tmp_path):
    """Measured on those with a label, expected on the others; with all labelled, expected beside measured."""
    files = sorted(folder.glob("striped/*/*.png"))
    lines = [f"{file},{file.parent.name if place % 2 else ''}" for place, file in enumerate(files)]
    (tmp_path / "half.csv").write_text("path,object\n" + "\n".join(lines))
    result = evaluate(EvaluateConfig(run, data=str(tmp_path / "half.csv")))
    assert result["test"]["object"]["n"] == 12
    assert (result["expected_accuracy"]["object"]["n"], result["expected_accuracy"]["object"]["of"]) == (
        12,
        "images without labels",
    )
    whole = evaluate(EvaluateConfig(run, data=str(folder)))
    assert whole["test"]["object"]["n"] == whole["expected_accuracy"]["object"]["n"] == 48
    assert whole["expected_accuracy"]["object"]["of"] == "all images"


def test_what_an_expected_accuracy_lacks_is_said(run, folder, tmp_path):
    for number, file in enumerate(sorted(folder.glob("striped/*/*.png"))[:9]):
        shutil.copy(file, tmp_path / f"{number}.png")
    with pytest.raises(TransferError, match="needs 10 images or more"):
        evaluate(EvaluateConfig(run, data=str(tmp_path)))
    (run / "uncertainty.safetensors").unlink()
    with pytest.raises(TransferError, match="there is no expected accuracy: this needs a run of `transfer train`"):
        evaluate(EvaluateConfig(run, data=str(tmp_path)))
    assert "expected_accuracy" not in evaluate(EvaluateConfig(run, data=str(folder)))


def test_an_adapted_run_is_not_to_be_trained_again_for_an_expected_accuracy(run, folder, tmp_path):
    for number, file in enumerate(sorted(folder.glob("striped/*/*.png"))):
        shutil.copy(file, tmp_path / f"{number}.png")
    (run / "uncertainty.safetensors").unlink()
    result = run / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"command": "adapt"}))
    with pytest.raises(TransferError, match="there is no expected accuracy of an adapted run: held-out images"):
        evaluate(EvaluateConfig(run, data=str(tmp_path)))
    with pytest.raises(TransferError, match="no expected accuracy of an adapted run"):
        load_run(run).expected_accuracy(sorted(tmp_path.glob("*.png")))
    result.write_text("[]")
    with pytest.raises(TransferError, match="this needs a run of `transfer train`"):
        evaluate(EvaluateConfig(run, data=str(tmp_path)))


def test_a_class_of_the_run_may_be_called_unknown(config, folder, tmp_path):
    """It is no placeholder for a missing label."""
    data = tmp_path / "data"
    shutil.copytree(folder / "plain", data)
    (data / "red").rename(data / "unknown")
    train(config(data=str(data), out=tmp_path / "run", epochs=1))
    result = evaluate(EvaluateConfig(tmp_path / "run", data=str(data)))
    assert result["test"]["object"]["n"] == 24
