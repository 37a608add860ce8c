import json
import shutil
from dataclasses import replace

import pytest
import torch

from transfer.config.checked import from_dict
from transfer.config.train import BackboneConfig, DataConfig, PolicyConfig, TrainConfig
from transfer.errors import TransferError
from transfer.evaluation.predict import predict
from transfer.feature_cache.key import describe_activation
from transfer.formats.record import describe_models
from transfer.heads import HeadSpec
from transfer.runs import checkpoint
from transfer.training.setup import new_model, read_images
from transfer.training.train import train


def test_one_object_only_is_refused(folder, tmp_path):
    shutil.copytree(folder / "plain" / "red", tmp_path / "set" / "red")
    with pytest.raises(TransferError, match="needs at least two objects, found only 'red'"):
        read_images(DataConfig(str(tmp_path / "set")))


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_a_bad_image_is_refused_by_name_or_skipped_and_counted(folder, tmp_path, content):
    shutil.copytree(folder / "plain", tmp_path / "set")
    (tmp_path / "set" / "red" / "0.png").write_bytes(content)
    with pytest.raises(TransferError, match=r"1 of 24 images.*red/0\.png.*--on-bad-image skip"):
        read_images(DataConfig(str(tmp_path / "set")))
    images = read_images(DataConfig(str(tmp_path / "set"), on_bad_image="skip"))
    assert len(images.table) == 23
    assert any("1 bad image skipped" in note for note in images.table.notes)


def test_labels_decide_between_a_table_and_folders(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    files = sorted((tmp_path / "set").rglob("*.png"))
    rows = [f"{file.relative_to(tmp_path / 'set')};{'ab'[i % 2]}" for i, file in enumerate(files)]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(["Image Name;Category", *rows]))
    config = DataConfig(str(tmp_path / "set"))
    assert read_images(config).table.objects == ("a", "b")
    assert read_images(replace(config, labels="folders")).table.objects == ("blue", "green", "red")
    assert read_images(replace(config, labels="labels.csv")).table.objects == ("a", "b")


def test_some_objects_are_a_set_of_their_own(folder):
    images = read_images(DataConfig(str(folder)))
    some = images.of(("red", "blue"))
    assert some.table.objects == ("blue", "red")
    assert some.table.domains == images.table.domains
    assert len(some.table) == len(some.inspection) == 32
    for path, digest, label in zip(some.table.paths, some.inspection.sha256, some.table.object, strict=True):
        assert some.table.objects[label] == path.replace("\\", "/").split("/")[-2]
        assert digest == images.inspection.sha256[images.table.paths == path].item()
    with pytest.raises(TransferError, match=r"no object 'rad'.*did you mean 'red'"):
        images.of(["rad"])


@pytest.mark.parametrize(
    ("policy", "random_init", "statistics", "found"),
    [
        ("partial:2", False, "auto", "frozen"),
        ("partial:2", False, "learning", "learning"),
        ("partial:2", True, "auto", "learning"),
        ("scratch", False, "auto", "learning"),
    ],
)
def test_norms_learn_from_images_where_pretraining_taught_them_nothing(policy, random_init, statistics, found):
    config = TrainConfig(
        backbone=BackboneConfig("glyphnet", random_init=random_init),
        policy=PolicyConfig(policy, statistics=statistics),
    )
    model, plan = new_model(config, [HeadSpec("object", classes=("a", "b"))], 0, torch.device("cpu"))
    model.freeze(plan.phases[0])
    model.train()
    top = model.backbone.stages[-1].modules[0]
    norms = [m for m in model.backbone.network.get_submodule(top).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert {"learning" if norm.training else "frozen" for norm in norms} == {found}
    assert all(norm.weight.requires_grad for norm in norms)


def test_a_border_is_saved_with_the_model_and_in_its_cache_key(config, folder, tmp_path):
    """Edges count for a run with a border, in prediction from its file and in export, and no cached row is shared."""
    runs = {}
    for crop in ("default", "border"):
        run = train(config(crop=crop, out=tmp_path / crop))
        loaded = checkpoint.load_models(tmp_path / crop)[""].backbone.preprocessing
        assert loaded == run.models[""].backbone.preprocessing
        assert json.loads((tmp_path / crop / "config.json").read_text())["backbone"]["crop"] == crop
        assert describe_models(run.models)["preprocessing"]["crop_mode"] == loaded.crop_mode
        runs[crop] = run
    default, border = (runs[crop].models[""] for crop in ("default", "border"))
    assert border.backbone.preprocessing == default.backbone.preprocessing.with_border()
    keys = [describe_activation(model, model.cut, "float32") for model in (default, border)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"preprocessing"}
    for run in runs.values():
        table, predictions = run.tests[0]
        rows = predict(checkpoint.load_models(run.folder), table.paths.tolist())
        called = predictions["object"].argmax(1)
        assert [row["object"] for row in rows] == [table.objects[i] for i in called]


def test_a_config_without_a_crop_is_of_an_older_version():
    assert from_dict(BackboneConfig, {"backbone": "glyphnet"}).crop == "default"
