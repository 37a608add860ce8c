"""Test-time augmentation, compared with each view predicted by itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from transfer import freeze
from transfer.config.train import ViewConfig
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import read_pixels
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.averages.tta import enlarge_for_crops, make_views, predict_views
from transfer.evaluation.predictions import predict_rows, target_tensors
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel

OWN = Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.875)


def by_hand(images: Tensor, side: int) -> list[Tensor]:
    """Return the ten crops of AlexNet."""
    h, w = images.shape[-2:]
    middle = round((h - side) / 2), round((w - side) / 2)
    places = [(0, 0), (0, w - side), (h - side, 0), (h - side, w - side), middle]
    both = (images, images.flip(-1))
    return [image[..., top : top + side, left : left + side] for image in both for top, left in places]


@pytest.mark.parametrize(("crop_pct", "square"), [(0.875, 256), (1.0, 256), (0.7, 320)])
def test_the_square_that_crops_are_taken_from(crop_pct: float, square: int) -> None:
    own = Preprocessing((3, 224, 224), OWN.mean, OWN.std, "bilinear", crop_pct)
    assert enlarge_for_crops(own).input_size == (3, square, square)
    assert enlarge_for_crops(own).resized == (square, square)


def test_ten_crops_are_corners_centre_and_their_mirrors() -> None:
    images = torch.randint(0, 256, (2, 3, 37, 37), dtype=torch.uint8)
    small = Preprocessing((3, 32, 32), OWN.mean, OWN.std, "bilinear", 1.0)
    crops = list(make_views(images, small, 10))
    assert len(crops) == 10
    for crop in by_hand(images, 32):
        assert sum(torch.equal(crop, other) for other in crops) == 1
    assert list(make_views(images, small, 1)) == [images]


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
@pytest.mark.parametrize("sizes", [(), (48,), (24, 32, 48)])
@pytest.mark.parametrize("crops", [1, 10])
def test_the_prediction_is_the_mean_over_all_views(
    taught: Callable[..., Any], images: ImageTable, policy: str, sizes: tuple[int, ...], crops: Any
) -> None:
    model, plan = taught(policy)
    model.freeze(plan.phases[0])
    paths = images.paths[::12]
    before = freeze.hash_frozen_tensors(model.backbone, ())
    got = predict_views(model, paths, ViewConfig(crops, sizes))
    assert freeze.hash_frozen_tensors(model.backbone, ()) == before
    own = model.backbone.preprocessing
    total: dict[str, Any] = {}
    for size in sizes or (32,):
        at = own.at_size(size) if sizes else own
        whole = torch.stack(
            [prepare(read_pixels(path), enlarge_for_crops(at) if crops == 10 else at) for path in paths]
        )
        for view in by_hand(whole, size) if crops == 10 else [whole]:
            for name, values in model.predict(view).items():
                total[name] = total.get(name, 0.0) + values.numpy() / (crops * max(len(sizes), 1))
    for name, values in got.items():
        np.testing.assert_allclose(values, total[name], atol=1e-5)
        np.testing.assert_allclose(values.sum(1), 1.0, atol=1e-5)


def test_the_trained_size_gives_the_plain_prediction(
    taught: Callable[..., Any], images: ImageTable, digests: Any
) -> None:
    model, plan = taught()
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, images.paths, digests, batch_size=16)
    plain = predict_rows(model, feed, np.arange(len(images)), target_tensors(images, model))[0]
    for name, values in predict_views(model, images.paths, ViewConfig(test_sizes=(32,))).items():
        np.testing.assert_allclose(values, plain[name], atol=1e-6)


def test_no_images_give_no_predictions(taught: Callable[..., Any]) -> None:
    model, _ = taught()
    assert all(len(values) == 0 for values in predict_views(model, [], ViewConfig(10)).values())


def test_a_size_that_the_network_does_not_take_is_refused(small: Callable[..., Any], images: ImageTable) -> None:
    backbone = small("vgg11", size=32)
    model = TransferModel(backbone, Heads([HeadSpec("object", classes=images.objects)], backbone.width))
    with pytest.raises(TransferError, match="--test-sizes"):
        predict_views(model, images.paths[:1], ViewConfig(test_sizes=(8,)))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no")])
def test_too_little_memory_is_no_matter_of_the_network(
    small: Callable[..., Any], images: ImageTable, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    backbone = small()
    model = TransferModel(backbone, Heads([HeadSpec("object", classes=images.objects)], backbone.width))

    def predict(self: TransferModel, pixels: Tensor) -> None:
        raise error

    monkeypatch.setattr(TransferModel, "predict", predict)
    with pytest.raises(
        TransferError, match="images of 64 x 64 pixels do not fit into memory: try smaller --test-sizes"
    ):
        predict_views(model, images.paths, ViewConfig(test_sizes=(64,)))


@pytest.mark.parametrize(("config", "several"), [(ViewConfig(), False), (ViewConfig(10), True)])
def test_several(config: ViewConfig, several: bool) -> None:
    assert config.several == several
    assert ViewConfig(test_sizes=(8,)).several
