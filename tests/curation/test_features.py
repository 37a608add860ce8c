from dataclasses import replace
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from PIL import Image

from transfer import backbones
from transfer.config.shared import ImagesConfig
from transfer.config.train import BackboneConfig
from transfer.curation.features import load_data_set_features
from transfer.data.images.preprocessing import prepare
from transfer.errors import TransferError

GLYPHNET = BackboneConfig("glyphnet")


def test_features_are_the_pooled_output_of_the_backbone(images):
    data = load_data_set_features(ImagesConfig(str(Path(images.paths[0]).parents[2])), GLYPHNET, device="cpu")
    assert sorted(data.table.paths) == sorted(images.paths)
    network = backbones.load("glyphnet").eval()
    for row in (0, 20, 47):
        image = torch.from_numpy(np.array(Image.open(data.table.paths[row]).convert("RGB"))).permute(2, 0, 1)
        view = network.preprocessing.normalise(prepare(image, network.preprocessing)[None])
        with torch.no_grad():
            expected = network(view).flatten()
        np.testing.assert_allclose(data.features[row], expected, rtol=1e-4, atol=1e-5)


def test_a_folder_without_class_folders_has_no_labels(images, tmp_path):
    for i, path in enumerate(images.paths[:5]):
        copy(path, tmp_path / f"{i}.png")
    data = load_data_set_features(ImagesConfig(str(tmp_path)), GLYPHNET, device="cpu")
    assert data.features.shape[0] == 5
    assert not data.table.objects
    assert (data.table.object == -1).all()
    assert "the images lie in no class folder: their labels are unknown" in data.table.choices


def test_bad_images_are_refused_or_left_out_and_named(images, tmp_path):
    for i, path in enumerate(images.paths[:3]):
        copy(path, tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"no image")
    config = ImagesConfig(str(tmp_path))
    with pytest.raises(TransferError, match=r"3\.png"):
        load_data_set_features(config, GLYPHNET, device="cpu")
    data = load_data_set_features(replace(config, on_bad_image="skip"), GLYPHNET, device="cpu")
    assert len(data.table) == len(data.inspection) == len(data.features) == 3
    assert [Path(each.path).name for each in data.table.left_out] == ["3.png"]


def test_rows_are_taken_of_all_parts(images):
    data = load_data_set_features(ImagesConfig(str(Path(images.paths[0]).parents[2])), GLYPHNET, device="cpu")
    part = data.take(np.array([5, 1]))
    assert part.table.paths.tolist() == data.table.paths[[5, 1]].tolist()
    assert part.inspection.sha256.tolist() == data.inspection.sha256[[5, 1]].tolist()
    np.testing.assert_array_equal(part.features, data.features[[5, 1]])
