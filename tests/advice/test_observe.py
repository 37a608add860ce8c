import numpy as np
import pytest
import torch

from transfer.advice.observe import observe
from transfer.backbones import load
from transfer.config.train import CacheConfig
from transfer.data.images.batches import ImageBatches
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache


@pytest.fixture
def seen(images, digests, tmp_path):
    cache = TrunkCache(CacheConfig(), disk_cache=DiskCache(tmp_path))
    return cache, observe(load("glyphnet", classifier="any"), images, digests, cache)


def test_observations_agree_with_the_network(seen, images):
    _, found = seen
    backbone = load("glyphnet", classifier="any")
    ((_, pixels),) = ImageBatches(images.paths, backbone.preprocessing, batch_size=len(images))
    given = {}
    last = backbone.network.layer2[-1].bn2
    last.register_forward_pre_hook(lambda _, x: given.update(x=x[0]))
    with torch.no_grad():
        normalised = backbone.preprocessing.normalise(pixels)
        features = backbone(normalised)
        middle = backbone.trunk(normalised, 3)
        wanted = backbone.classifier(features).softmax(1)
    close = {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(found.features["layer4"], features, **close)
    np.testing.assert_allclose(found.features["layer2"], middle.mean((2, 3)), **close)
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-2, atol=1e-4)
    assert list(found.features) == [stage.name for stage in backbone.stages]
    norm = found.norms["layer2"]
    np.testing.assert_allclose(norm.mean, given["x"].mean((2, 3)), **close)
    np.testing.assert_allclose(norm.square, given["x"].square().mean((2, 3)), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(norm.running_var, last.running_var)


def test_cached_observations_are_not_computed_twice(seen, images, digests):
    cache, first = seen
    spent = cache.seconds
    again = observe(load("glyphnet", classifier="any"), images, digests, cache)
    assert cache.seconds == spent > 0
    np.testing.assert_array_equal(again.features["layer4"], first.features["layer4"])


def test_take_selects_rows(seen):
    _, found = seen
    taken = found.take(np.array([3, 1]))
    np.testing.assert_array_equal(taken.features["stem"], found.features["stem"][[3, 1]])
    np.testing.assert_array_equal(taken.norms["layer3"].square, found.norms["layer3"].square[[3, 1]])
    np.testing.assert_array_equal(taken.probabilities, found.probabilities[[3, 1]])


def test_without_a_classifier_or_running_statistics(images, digests, tmp_path):
    cache = TrunkCache(CacheConfig(), disk_cache=DiskCache(tmp_path))
    backbone = load("torchvision:squeezenet1_1", random_init=True, classifier="any", image_size=64)
    found = observe(backbone, images, digests, cache)
    assert found.probabilities is None
    assert found.norms == {}
    assert found.take(np.arange(2)).probabilities is None
