from dataclasses import replace

import numpy as np
import pytest
import torch
from upload_files import encode

from transfer.config.serving import ServeConfig
from transfer.config.shared import BackboneConfig
from transfer.evaluation.finished_run import load_run
from transfer.evaluation.gradcam import compute_gradcam
from transfer.server.neighbours import TrainingIndex
from transfer.server.served_run import ExplainedImage, ServedRun, shorten_lists
from transfer.server.uploads import decode_upload


@pytest.fixture(scope="module")
def run(served_folder):
    return ServedRun(served_folder, ServeConfig((served_folder,), device="cpu"))


def prepared(run, *colours):
    return [decode_upload(encode(colour, seed=i), run.preprocessing).pixels for i, colour in enumerate(colours)]


def test_predictions_are_those_of_transfer_predict(run, served_folder, folder):
    paths = sorted(folder.rglob("*.png"))[::7]
    expected = load_run(served_folder, device="cpu").predict(paths, coverage=0.9, max_unknown=0.99, top=3)
    found = run.predict([decode_upload(path.read_bytes(), run.preprocessing).pixels for path in paths])
    for row, other in zip((each.row for each in found), expected, strict=True):
        assert {*row} == {*other} - {"path"} | {"doubt"}
        for name in ("object", "domain", "object_set", "domain_set"):
            assert row[name] == other[name]
        for name in ("object_probability", "domain_probability", "object_unknown"):
            assert row[name] == pytest.approx(other[name], abs=2e-3)
        assert [name for name, _ in row["object_top"]] == [name for name, _ in other["object_top"]]


def test_other_images_of_a_batch_change_nothing(run):
    images = prepared(run, "red", "green", "blue", "red", "blue")
    together = run.predict(images)
    for image, other in zip(images, together, strict=True):
        (alone,) = run.predict([image])
        assert alone.row == other.row
        assert np.array_equal(alone.features, other.features)


def test_doubt_is_what_is_missing_to_certainty_and_all_of_it_for_strange_images(run, served_folder):
    (found,) = run.predict(prepared(run, "red"))
    assert found.row["doubt"] == pytest.approx(1 - found.row["object_probability"], abs=1e-6)
    careful = ServedRun(served_folder, ServeConfig((served_folder,), device="cpu", max_unknown=0.0))
    noise = torch.randint(0, 256, prepared(run, "red")[0].shape, dtype=torch.uint8)
    (strange,) = careful.predict([noise])
    assert strange.row["object"] is None
    assert strange.row["doubt"] == 1


def test_explanations_are_grad_cam(run):
    images = prepared(run, "red", "blue")
    found = run.explain([ExplainedImage(images[0], 2), ExplainedImage(images[1], 0)])
    expected = compute_gradcam(run.main_model, torch.stack(images), np.array([2, 0]))
    assert run.explains
    assert np.allclose(found, expected, atol=1e-5)


def test_a_run_without_uncertainty_predicts_without_sets(served_folder, run_folder):
    (run_folder / "uncertainty.safetensors").unlink()
    run = ServedRun(run_folder, ServeConfig((run_folder,), device="cpu"))
    (found,) = run.predict(prepared(run, "red"))
    assert "object_set" not in found.row
    assert "object_unknown" not in found.row
    about = run.describe()
    assert about["coverage"] is None
    assert about["max_unknown"] is None


def test_a_run_says_what_it_is(run):
    about = run.describe()
    assert about["backbone"] == "glyphnet"
    assert about["heads"]["object"]["classes"] == ["blue", "green", "red"]
    assert about["main"] == "object"
    assert {"accuracy", "n"} <= about["test"]["object"].keys()


def test_a_model_file_alone_is_served(served_folder):
    file = served_folder / "model.safetensors"
    run = ServedRun(file, ServeConfig((file,), device="cpu"))
    assert run.name == served_folder.name
    assert run.coverage == 0.9


def test_numbers_and_labels_are_served_without_doubt_or_explanation(run, monkeypatch):
    spec = replace(run.specs["object"], kind="regression", classes=())
    other = object.__new__(ServedRun)
    other.specs, other.main = {"object": spec}, "object"
    assert not other.explains
    assert other._with_doubt({"object": 3.5}) == {"object": 3.5}


@pytest.mark.parametrize(
    ("policy", "heads"), [("partial:1", "dual"), ("full", "joint"), ("linear_probe", "separate"), ("head2toe", "dual")]
)
def test_runs_of_every_policy_and_kind_of_heads_are_served(policy, heads, folder, tmp_path):
    from transfer.config.train import DataConfig, HeadConfig, LearnConfig, PolicyConfig, RunConfig, TrainConfig
    from transfer.training.train import train

    train(
        TrainConfig(
            DataConfig(str(folder)),
            BackboneConfig("glyphnet"),
            policy=PolicyConfig(policy),
            heads=HeadConfig(heads=heads),
            learn=LearnConfig(epochs=2),
            run=RunConfig(out=tmp_path / "run", report=False),
        )
    )
    run = ServedRun(tmp_path / "run", ServeConfig((tmp_path / "run",), device="cpu"))
    path = sorted(folder.rglob("*.png"))[3]
    (expected,) = load_run(tmp_path / "run", device="cpu").predict([path], coverage=0.9)
    image = decode_upload(path.read_bytes(), run.preprocessing).pixels
    (found,) = run.predict([image])
    for name in ("object_probability", "domain_probability"):
        assert found.row[name] == pytest.approx(expected[name], abs=2e-3)
    (heat,) = run.explain([ExplainedImage(image, 0)])
    assert heat is not None
    assert heat.ndim == 2
    index = TrainingIndex(run)
    for _ in index.steps():
        pass
    assert index.describe()["state"] == "ready"
    assert len(index.find(found.features, "")) == 3


def test_lists_of_classes_are_shortened():
    row = {"object": "a", "object_top": [["a", 0.6], ["b", 0.4]], "domain_set": ["x", "y"]}
    assert shorten_lists(row, 1) == {"object": "a", "object_top": [["a", 0.6]], "domain_set": ["x", "y"]}
