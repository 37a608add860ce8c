import shutil
from pathlib import Path

import numpy as np
import pytest
from upload_files import encode

from transfer.config.serving import ServeConfig
from transfer.config.train import CacheConfig
from transfer.feature_cache import TrunkCache
from transfer.runs.folder import IMAGES_FILE
from transfer.runs.image_list import read_image_list, write_image_list
from transfer.server import neighbours
from transfer.server.neighbours import TrainingIndex
from transfer.server.served_run import ServedRun
from transfer.server.uploads import decode_upload


@pytest.fixture(scope="module")
def run(served_folder):
    return ServedRun(served_folder, ServeConfig((served_folder,), device="cpu"))


def finish(index):
    for _ in index.steps():
        pass
    return index


@pytest.fixture
def moved(served_folder, folder, tmp_path):
    """A run whose images are copies that a test may change; its features are cached nowhere."""
    copy, images = shutil.copytree(served_folder, tmp_path / "run"), shutil.copytree(folder, tmp_path / "images")
    listed = read_image_list(copy)
    for image in listed:
        image["path"] = str(images / Path(image["path"]).relative_to(folder))
    write_image_list(copy, listed)
    run = ServedRun(copy, ServeConfig((copy,), device="cpu"))
    return TrainingIndex(run, TrunkCache(CacheConfig(cache=False)))


def features_of(run, content):
    return run.predict([decode_upload(content, run.preprocessing).pixels])[0].features


@pytest.mark.parametrize("cached", [True, False])
def test_neighbours_are_those_of_a_naive_search(run, cached):
    index = finish(TrainingIndex(run, None if cached else TrunkCache(CacheConfig(cache=False))))
    assert index.describe() == {"state": "ready", "images": len(index.images), "of": len(index.images), "lost": 0,
                                "problem": ""}  # fmt: skip
    wanted = features_of(run, encode("green"))
    similarities = []
    for image in index.images:
        own = features_of(run, Path(image["path"]).read_bytes())
        similarities.append(own @ wanted / np.linalg.norm(own) / np.linalg.norm(wanted))
    order = np.argsort(-np.array(similarities))[:3]
    found = index.find(wanted, "")
    assert [each["row"] for each in found] == order.tolist()
    assert [each["similarity"] for each in found] == pytest.approx([similarities[row] for row in order], abs=2e-4)
    assert {image["split"] for image in index.images} == {"train"}
    of_class = [row for row in np.argsort(-np.array(similarities)) if index.images[row]["object"] == "red"]
    assert [each["row"] for each in index.find(wanted, "", "red")] == of_class[:3]


def test_a_training_image_is_recognised_by_its_bytes(run):
    index = finish(TrainingIndex(run))
    image = index.images[4]
    (first, *others) = index.find(features_of(run, Path(image["path"]).read_bytes()), image["sha256"])
    assert (first["row"], first["same"], first["labels"]["object"]) == (4, True, image["object"])
    assert not any(each["same"] for each in others)


def test_images_that_are_gone_or_changed_are_counted_and_not_shown(moved):
    gone, changed = (moved.images[row]["path"] for row in (0, 1))
    Path(gone).unlink()
    Path(changed).write_bytes(encode("red", seed=99))
    finish(moved)
    about = moved.describe()
    assert (about["state"], about["lost"], about["images"]) == ("ready", 2, len(moved.images) - 2)
    assert moved.draw(0) is None
    assert moved.draw(1) is None
    assert moved.draw(2).startswith(b"\xff\xd8")
    assert moved.draw(-1) is None
    assert moved.draw(10_000) is None


def test_images_that_are_gone_after_indexing_are_named_without_a_picture(moved):
    finish(moved)
    features = features_of(moved.run, encode("red"))
    row = moved.find(features, "")[0]["row"]
    Path(moved.images[row]["path"]).unlink()
    found = moved.find(features, "")[0]
    assert (found["row"], found["picture"]) == (row, False)
    assert found["labels"]


def test_a_run_whose_images_are_all_gone_says_so(moved, tmp_path):
    shutil.rmtree(tmp_path / "images")
    finish(moved)
    assert moved.describe()["state"] == "missing"
    assert "none of the run's training images" in moved.describe()["problem"]
    assert moved.find(features_of(moved.run, encode()), "") == []


def test_a_run_without_a_list_of_images_says_so(served_folder, tmp_path):
    copy = shutil.copytree(served_folder, tmp_path / "run")
    (copy / IMAGES_FILE).unlink()
    index = finish(TrainingIndex(ServedRun(copy, ServeConfig((copy,), device="cpu"))))
    assert index.describe()["state"] == "missing"
    assert IMAGES_FILE in index.describe()["problem"]


def test_of_many_images_a_sample_of_each_class_is_indexed(run, monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_INDEXED", 9)
    index = TrainingIndex(run)
    counts = [sum(image["object"] == name for image in index.images) for name in run.classes]
    assert len(index.images) <= 9
    assert min(counts) >= 2
