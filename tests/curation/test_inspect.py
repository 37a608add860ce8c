import json
import tarfile
from pathlib import Path
from shutil import copy, copytree

import numpy as np
import pytest
from PIL import Image

import transfer
from transfer.config.curation import InspectConfig
from transfer.config.shared import BackboneConfig, ImagesConfig
from transfer.curation.inspect import inspect
from transfer.errors import TransferError
from transfer.report.figures.thumbnails import Thumbnails


def look(data, **images):
    images = ImagesConfig(str(data), on_bad_image="skip", **images)
    return inspect(InspectConfig(images, BackboneConfig("glyphnet"), device="cpu"))


def kinds(result):
    return {finding["kind"]: finding for finding in result["findings"]}


@pytest.fixture
def faulty(folder, tmp_path):
    """The tiny set with a wrong label, a copy under another class, a blank image, a broken file and a text."""
    data = tmp_path / "data"
    copytree(folder, data)
    (data / "plain/red/0.png").rename(data / "plain/blue/wrong.png")
    copy(data / "plain/green/1.png", data / "plain/blue/copy.png")
    Image.new("RGB", (32, 32), "grey").save(data / "striped/green/blank.png")
    (data / "plain/green/broken.png").write_bytes(b"no image")
    (data / "notes.txt").write_text("x")
    return data


def test_what_is_wrong_is_found_and_written(faulty, tmp_path):
    images = ImagesConfig(str(faulty), on_bad_image="skip")
    config = InspectConfig(images, BackboneConfig("glyphnet"), device="cpu", out=tmp_path / "out")
    result = inspect(config)
    assert json.loads((tmp_path / "out/findings.json").read_text()) == json.loads(json.dumps(result))
    found, paths = kinds(result), result["images"]["path"]
    assert {Path(paths[row]).name for row in found["conflicting_labels"]["items"][0]["rows"]} == {"copy.png", "1.png"}
    assert [Path(paths[row]).name for item in found["blank"]["items"] for row in item["rows"]] == ["blank.png"]
    reasons = {Path(each["path"]).name: each["reason"] for each in result["overview"]["left_out"]}
    assert set(reasons) == {"broken.png", "notes.txt"}
    assert "not an image" in reasons["broken.png"]
    assert len(result["map"]["rows"]) == len(result["map"]["places"]) == len(paths)
    assert {len(column) for column in result["images"].values()} == {len(paths)}


def test_the_seed_and_the_cache_change_no_finding_of_a_sound_set(folder):
    first, second = look(folder), look(folder)
    assert first.pop("seconds") >= 0
    assert second.pop("seconds") >= 0
    assert first == second
    faults = {
        "blank",
        "dark",
        "bright",
        "blurred",
        "tiny",
        "odd_shape",
        "turned",
        "duplicates",
        "conflicting_labels",
        "leaks",
    }
    assert not faults & set(kinds(first))


def test_images_without_labels_are_inspected(folder, tmp_path):
    for i in range(4):
        copy(folder / f"plain/red/{i}.png", tmp_path / f"{i}.png")
    copy(folder / "plain/red/0.png", tmp_path / "copy.png")
    result = look(tmp_path)
    assert result["overview"]["counts"] == {"": [5]}
    assert "duplicates" in kinds(result)
    assert not {"label_suspects", "confused_classes", "conflicting_labels"} & set(kinds(result))


def test_one_class_and_one_image_are_inspected(folder, tmp_path):
    (tmp_path / "red").mkdir()
    copy(folder / "plain/red/0.png", tmp_path / "red/0.png")
    result = look(tmp_path)
    assert result["overview"]["counts"] == {"red": [1]}
    assert result["findings"] == []


def test_a_csv_with_a_split_shows_leaks(folder, tmp_path):
    copy(folder / "plain/red/0.png", tmp_path / "copy.png")
    rows = [f"{folder}/plain/{name}/{i}.png,{name},train" for name in ("red", "blue") for i in range(4)]
    file = tmp_path / "images.csv"
    file.write_text("\n".join(["path,object,split", *rows, "copy.png,red,test"]))
    result = look(file)
    (item,) = kinds(result)["leaks"]["items"][:1]
    assert {Path(result["images"]["path"][row]).name for row in item["rows"]} >= {"copy.png"}
    assert result["overview"]["splits"] == {"train": 8, "test": 1}


def test_shards_are_inspected_and_their_pictures_drawn(folder, tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("red", "blue"):
            for i in range(6):
                tar.add(folder / f"plain/{name}/{i}.png", f"{name}/{i}.png")
    result = look(tmp_path / "set.tar")
    assert result["overview"]["counts"] == {"blue": [6], "red": [6]}
    assert result["overview"]["formats"] == {"PNG": 12}
    assert len(Thumbnails(result["images"]["path"]).draw([0, 11], 32)) == 2


def test_bad_images_can_be_refused_and_only_bad_ones_are_an_error(faulty, tmp_path):
    config = InspectConfig(ImagesConfig(str(faulty), on_bad_image="refuse"), BackboneConfig("glyphnet"), device="cpu")
    with pytest.raises(TransferError, match=r"broken\.png"):
        inspect(config)
    (tmp_path / "all/bad").mkdir(parents=True)
    (tmp_path / "all/bad/a.png").write_bytes(b"x")
    with pytest.raises(TransferError, match="none of the 1 images can be used"):
        look(tmp_path / "all")


def test_it_is_public():
    assert transfer.inspect is inspect
    assert np.array_equal(
        sorted(transfer.InspectConfig.__dataclass_fields__), sorted(InspectConfig.__dataclass_fields__)
    )
