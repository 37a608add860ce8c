import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transfer.data import images as module
from transfer.data.images import Augmentation, BadImage, ImageBatches, Preprocessing, augment, decode, prepare

P = Preprocessing((3, 16, 24), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bilinear", 0.9)
ALL = Augmentation(crop_scale=(0.3, 1.0), flip=True, jitter=0.4)


@pytest.fixture
def paths(tmp_path, picture):
    return np.array([str(picture(tmp_path / f"{i}.png", i)) for i in range(11)])


def all_of(batches):
    rows, images = zip(*batches, strict=True)
    return torch.cat(rows), torch.cat(images)


def test_batches_are_the_prepared_images_in_order(paths):
    order = np.array([5, 0, 10, 5, 3])
    batches = ImageBatches(paths, P, batch_size=2, order=order)
    assert len(batches) == 3
    got = list(batches)
    assert [len(rows) for rows, _ in got] == [2, 2, 1]
    rows, images = all_of(got)
    assert rows.tolist() == order.tolist()
    assert rows.dtype == torch.int64
    assert images.dtype == torch.uint8
    for row, image in zip(rows, images, strict=True):
        assert torch.equal(image, prepare(decode(paths[row]), P))


@pytest.mark.parametrize("augmentation", [None, ALL])
def test_workers_batch_size_and_order_change_no_image(paths, augmentation):
    expected = None
    for workers, size, order in ((1, 4, np.arange(11)), (3, 4, np.arange(11)), (2, 11, np.arange(11)[::-1])):
        rows, images = all_of(
            ImageBatches(paths, P, batch_size=size, order=order, augmentation=augmentation, seed=1, workers=workers)
        )
        images = images[rows.argsort()]
        expected = images if expected is None else expected
        assert torch.equal(images, expected)


def test_draws_depend_on_seed_epoch_and_row(paths, tmp_path):
    one = np.array([paths[0]] * 4)
    views = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        views += list(all_of(ImageBatches(one, P, augmentation=ALL, seed=seed, epoch=epoch))[1])
    assert len({v.numpy().tobytes() for v in views}) == len(views)


def test_an_empty_order_has_no_batches(paths):
    assert list(ImageBatches(paths, P, order=np.array([], np.int64))) == []
    assert len(ImageBatches(paths, P, order=np.array([], np.int64))) == 0


def test_a_bad_image_is_named_and_the_threads_end(paths, tmp_path):
    Path(paths[7]).write_bytes(Path(paths[7]).read_bytes()[:-200])
    before = threading.active_count()
    with pytest.raises(BadImage, match=r"7\.png"):
        list(ImageBatches(paths, P, batch_size=3))
    assert threading.active_count() == before


def test_memory_is_bounded_and_a_loop_that_stops_early_ends_the_threads(paths, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "decode", lambda path: loaded.append(path) or decode(path))
    before = threading.active_count()
    batches = iter(ImageBatches(np.repeat(paths, 10), P, batch_size=5, workers=2))
    next(batches)
    batches.close()
    assert len(loaded) <= 5 * 4
    assert threading.active_count() == before


def test_no_augmentation_is_the_evaluation_view(paths):
    image = decode(paths[0])
    rng = np.random.default_rng(0)
    assert torch.equal(augment(image, P, Augmentation(), rng), prepare(image, P))


def test_flip_mirrors_half_of_the_views(paths):
    image = decode(paths[0])
    view = prepare(image, P)
    mirrored = 0
    for seed in range(60):
        got = augment(image, P, Augmentation(flip=True), np.random.default_rng(seed))
        is_mirrored = torch.equal(got, view.flip(2))
        assert is_mirrored or torch.equal(got, view)
        mirrored += is_mirrored
    assert 15 < mirrored < 45


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 999))
def test_crops_have_the_area_and_aspect_asked_for(width, height, seed):
    left, top, right, bottom = module._random_box(width, height, (0.3, 0.6), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    if min(width, height) > 60 and max(width, height) < 1.3 * min(width, height):  # such crops exist
        assert 0.27 < w * h / (width * height) < 0.63
        assert 0.7 < w / h < 1.4


def test_crops_reach_every_corner():
    rng = np.random.default_rng(0)
    boxes = np.array([module._random_box(100, 80, (0.2, 0.4), rng) for _ in range(500)])
    assert (boxes[:, :2].min(0) <= 3).all()
    assert (boxes[:, 2:].max(0) >= [97, 77]).all()


def test_a_crop_shows_a_part_of_the_image():
    """On a picture whose red rises from left to right, a view's red range is as wide as its crop."""
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0] = np.arange(0, 200, 2)
    spans = []
    for seed in range(50):
        view = augment(Image.fromarray(ramp), P, Augmentation(crop_scale=(0.25, 0.25)), np.random.default_rng(seed))
        red = view[0].float().mean(0)
        assert (red.diff() >= 0).all()
        spans.append(float(red[-1] - red[0]))
    assert 0.4 * 200 < np.mean(spans) < 0.6 * 200


def test_jitter_changes_brightness_both_ways_and_stays_in_bounds():
    grey = Image.new("RGB", (30, 30), (120, 120, 120))
    got = [augment(grey, P, Augmentation(jitter=0.4), np.random.default_rng(s)).float().mean() for s in range(50)]
    assert 120 * 0.59 < min(got) < 100
    assert 140 < max(got) < 120 * 1.41
