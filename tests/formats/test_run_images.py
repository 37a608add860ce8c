import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.data.images.decode import BadImage
from transfer.data.images.preprocessing import prepare
from transfer.data.images.read import read_pixels
from transfer.errors import TransferError
from transfer.formats.run_images import RunImages, find_test_images, find_training_images
from transfer.runs import checkpoint


def split_of(run, part):
    with open(run / "images.csv", newline="") as file:
        return {row["path"] for row in csv.DictReader(file) if row["split"] == part}


def preprocessing_of(run):
    return next(iter(checkpoint.load_models(run).values())).backbone.preprocessing


def test_calibration_images_are_training_images(finished):
    training = split_of(finished, "train")
    found = find_training_images(finished, preprocessing_of(finished), 10)
    assert len(found.paths) == 10
    assert set(found.paths) < training
    assert found == find_training_images(finished, preprocessing_of(finished), 10)
    assert set(find_training_images(finished, preprocessing_of(finished), 1000).paths) == training


def test_test_images_come_with_their_labels(finished):
    models = checkpoint.load_models(finished)
    specs = [spec for model in models.values() for spec in model.heads.specs.values()]
    found, table = find_test_images(finished, preprocessing_of(finished), specs, 1000)
    assert set(found.paths) == split_of(finished, "test")
    for path, label, domain in zip(found.paths, table.object, table.domain, strict=True):
        assert Path(path).parts[-3:-1] == (specs[1].classes[domain], specs[0].classes[label])
    few, labels = find_test_images(finished, preprocessing_of(finished), specs, 3)
    assert len(few.paths) == len(labels) == 3


def test_images_are_read_as_the_network_reads_them(finished):
    preprocessing = preprocessing_of(finished)
    found = find_training_images(finished, preprocessing, 20)
    batches = list(found.read("reading"))
    assert [len(batch) for batch in batches] == [16, 4]
    for path, image in zip(found.paths, np.concatenate(batches), strict=True):
        np.testing.assert_array_equal(image, prepare(read_pixels(path), preprocessing).numpy())


def test_missing_and_changed_files_are_named(finished):
    preprocessing = preprocessing_of(finished)
    found = find_training_images(finished, preprocessing, 3)
    with pytest.raises(BadImage, match="was changed"):
        list(RunImages(found.paths, preprocessing, ["0" * 64] * 3).read("reading"))
    for path in found.paths:
        Path(path).unlink()
    with pytest.raises(TransferError, match=r"3 of 3 training images of .* are missing .*: put them back, or give"):
        find_training_images(finished, preprocessing, 3)
    (finished / "images.csv").unlink()
    with pytest.raises(TransferError, match=r"has no images\.csv"):
        find_training_images(finished, preprocessing, 3)
    assert not torch.is_inference_mode_enabled()
