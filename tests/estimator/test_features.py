import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from transfer.estimator import BackboneFeatures
from transfer.feature_cache.feed import Feed


def test_features_are_those_of_the_network_by_itself(pixels, images):
    import torch

    features = BackboneFeatures("test_resnet", device="cpu").fit(None)
    seen = features.transform(pixels)
    backbone = features.model_.backbone
    with torch.no_grad():
        plain = backbone(backbone.preprocessing.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    np.testing.assert_allclose(seen, plain, rtol=1e-3, atol=1e-4)
    assert (seen.dtype, seen.shape) == (np.float32, (48, backbone.width))
    np.testing.assert_array_equal(features.transform(images.paths), seen)
    assert len(features.get_feature_names_out()) == backbone.width
    assert features.get_feature_names_out()[1] == "backbonefeatures1"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(features)).transform(pixels), seen)
    assert BackboneFeatures("test_resnet", truncate=1).fit_transform(pixels[:2]).shape[1] != backbone.width


def test_a_border_shows_what_lies_at_the_edge(pixels, images):
    """A wide image loses its ends to the default crop; with a border they count."""
    wide = np.zeros((2, 32, 96, 3), np.uint8)
    wide[:, :, 32:64] = pixels[:2]
    ends = wide.copy()
    ends[:, :, :24], ends[:, :, 72:] = 255, 255
    for crop, same in (("default", True), ("border", False)):
        features = BackboneFeatures("test_resnet", crop=crop, device="cpu").fit(None)
        assert np.array_equal(features.transform(wide), features.transform(ends)) == same
    np.testing.assert_array_equal(features.transform(images.paths), features.transform(pixels))  # squares, of any form


def test_a_grid_search_sees_each_image_once(pixels, objects, monkeypatch):
    computed = []
    images = Feed._images
    monkeypatch.setattr(Feed, "_images", lambda self, rows, *a: computed.append(len(rows)) or images(self, rows, *a))
    pixels = 255 - pixels  # which no other test has in the cache
    pipeline = make_pipeline(BackboneFeatures("test_resnet"), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 10]}, cv=3).fit(list(pixels), objects)
    assert sum(computed) == len(np.unique(pixels, axis=0))
    assert search.best_score_ >= 0.8


def test_set_output_names_the_columns(pixels):
    pandas = pytest.importorskip("pandas")
    frame = BackboneFeatures("test_resnet").set_output(transform="pandas").fit_transform(pixels[:2])
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns[0] == "backbonefeatures0"


def test_mistakes_are_value_errors(pixels):
    with pytest.raises(ValueError, match="did you mean"):
        BackboneFeatures("test_resnett").fit(pixels)
    with pytest.raises(ValueError, match=r"--crop 'bordr' \(did you mean 'border'\?\)"):
        BackboneFeatures("test_resnet", crop="bordr").fit(pixels)
    with pytest.raises(ValueError, match=r"--device 'gpu' .*: it must be one of auto, cpu, cuda, mps"):
        BackboneFeatures("test_resnet", device="gpu").fit(pixels)
    with pytest.raises(NotFittedError):
        clone(BackboneFeatures()).transform(pixels)
    with pytest.raises(ValueError, match=r"X has shape \(2, 3\)"):
        BackboneFeatures("test_resnet").fit(pixels).transform(np.zeros((2, 3)))
