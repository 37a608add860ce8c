import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from transfer.config.commands import EvaluateConfig
from transfer.data.image_paths import find_images
from transfer.errors import TransferError
from transfer.evaluation.evaluate import evaluate
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
    assert any("1 classes that the model does not know (azure)" in note for note in result["notes"])
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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b'path,object\n"x',
        b"path,age,age_predicted\nx,old,1\n",
        b"path\n" + b"x" * 2**18,
    ],
)
def test_damaged_predictions_are_one_line(run, content):
    (run / "predictions.csv").write_bytes(content)
    with pytest.raises(TransferError, match="give --data"):
        evaluate(EvaluateConfig(run, device="cpu"))


def test_sets_are_measured_on_other_images(config, folder, tmp_path):
    run = tmp_path / "run"
    result = train(config(out=run, test=0.25)).result
    assert evaluate(EvaluateConfig(run=run))["uncertainty"] == result["uncertainty"]
    found = evaluate(EvaluateConfig(run=run, data=str(folder)))["uncertainty"]["heads"]["object"]
    assert found["n"] == result["uncertainty"]["heads"]["object"]["n"]
    assert 0 < found["sets"]["0.9"]["coverage"] <= 1
