import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.data.images import batches as module
from transfer.data.images.augment import Augmentation
from transfer.data.images.batches import ImageBatches, get_draw_keys
from transfer.data.images.decode import BadImage
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import read_pixels

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
        assert torch.equal(image, prepare(read_pixels(paths[row]), P))


@pytest.mark.parametrize("augmentation", [None, ALL])
def test_workers_batch_size_and_order_change_no_image(paths, augmentation):
    expected = None
    for workers, size, order in ((1, 4, np.arange(11)), (3, 4, np.arange(11)), (2, 11, np.arange(11)[::-1])):
        options = {"augmentation": augmentation, "keys": get_draw_keys(order, 1, 0), "workers": workers}
        rows, images = all_of(ImageBatches(paths, P, batch_size=size, order=order, **options))
        images = images[rows.argsort()]
        expected = images if expected is None else expected
        assert torch.equal(images, expected)


def test_draws_depend_on_seed_epoch_and_row(paths, tmp_path):
    one = np.array([paths[0]] * 4)
    views = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        views += list(all_of(ImageBatches(one, P, augmentation=ALL, keys=get_draw_keys(np.arange(4), seed, epoch)))[1])
    assert len({v.numpy().tobytes() for v in views}) == len(views)


def test_a_file_that_is_another_than_it_was_is_named(paths, tmp_path):
    mine = []
    for i, path in enumerate(paths[:4]):
        mine.append(str(tmp_path / f"{i}{Path(path).suffix}"))
        Path(mine[-1]).write_bytes(Path(path).read_bytes())
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in mine]
    batches = ImageBatches(mine, P, digests=digests, batch_size=4)
    assert torch.equal(all_of(batches)[1], all_of(ImageBatches(mine, P, batch_size=4))[1])
    Path(mine[2]).write_bytes(Path(mine[1]).read_bytes() + b"0")
    with pytest.raises(BadImage, match=r"2\.\w+ was changed since the run started"):
        list(batches)
    Path(mine[2]).unlink()
    with pytest.raises(BadImage, match=r"2\.\w+: No such file"):
        list(batches)


def test_an_empty_order_has_no_batches(paths):
    assert list(ImageBatches(paths, P, order=np.array([], np.int64))) == []
    assert len(ImageBatches(paths, P, order=np.array([], np.int64))) == 0


def test_a_bad_image_is_named_and_the_threads_end(paths, tmp_path):
    Path(paths[7]).write_bytes(Path(paths[7]).read_bytes()[:-200])
    before = threading.active_count()
    with pytest.raises(BadImage, match=r"7\.png"):
        list(ImageBatches(paths, P, batch_size=3))
    assert threading.active_count() == before


def test_bad_images_are_noted_and_black_where_asked_for(paths, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    several, bad = [paths[0], str(tmp_path / "bad.png"), paths[1]], {}
    ((_, images),) = ImageBatches(several, P, batch_size=3, bad=bad)
    ((_, sound),) = ImageBatches([paths[0], paths[1]], P, batch_size=2)
    assert torch.equal(images[[0, 2]], sound)
    assert not images[1].any()
    assert list(bad) == [1]
    assert "bad.png" in bad[1]


def test_memory_is_bounded_and_a_loop_that_stops_early_ends_the_threads(paths, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "read_pixels", lambda path, **k: loaded.append(path) or read_pixels(path, **k))
    before = threading.active_count()
    batches = iter(ImageBatches(np.repeat(paths, 10), P, batch_size=5, workers=2))
    next(batches)
    batches.close()
    assert len(loaded) <= 5 * 4
    assert threading.active_count() == before


def test_a_repeated_row_comes_in_another_view_each_time(paths):
    """As in balanced sampling; the first views are those of a row that comes once."""
    order = np.array([3, 7, 3, 3, 7])
    _, images = all_of(
        ImageBatches(paths, P, batch_size=2, order=order, augmentation=ALL, keys=get_draw_keys(order, 4, 0))
    )
    assert len({image.numpy().tobytes() for image in images}) == 5
    _, once = all_of(ImageBatches(paths, P, order=order[:2], augmentation=ALL, keys=get_draw_keys(order[:2], 4, 0)))
    assert torch.equal(images[:2], once)
    _, plain = all_of(ImageBatches(paths, P, order=order))
    assert torch.equal(plain[0], plain[2])


def test_keys_decide_the_draws_wherever_the_image_lies(paths):
    order = np.array([3, 7, 9])
    keys = [(1, 2**63, 5), (8,), (1, 2**63, 6)]
    _, images = all_of(ImageBatches(paths, P, order=order, augmentation=ALL, keys=keys))
    moved = ImageBatches(paths[::-1], P, order=10 - order[::-1], augmentation=ALL, keys=keys[::-1])
    assert torch.equal(images, all_of(moved)[1].flip(0))
    _, others = all_of(ImageBatches(paths, P, order=order, augmentation=ALL, keys=[(9,), (8,), (7,)]))
    assert [torch.equal(a, b) for a, b in zip(images, others, strict=True)] == [False, True, False]


def test_torch_has_one_thread_in_each_of_the_pools_and_as_many_as_before_elsewhere(paths, monkeypatch):
    before = torch.get_num_threads()
    inside = []
    monkeypatch.setattr(
        module, "read_pixels", lambda *a, **k: inside.append(torch.get_num_threads()) or read_pixels(*a, **k)
    )
    try:
        torch.set_num_threads(3)
        for _ in ImageBatches(paths, P, batch_size=3, workers=2):
            assert torch.get_num_threads() == 3
        assert set(inside) == {1}
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_large_files_are_decoded_smaller_for_the_evaluation_view_and_for_crops(tmp_path, picture, monkeypatch):
    file = str(picture(tmp_path / "a.jpg", size=(800, 800)))
    shapes = []

    def reading(path, **options):
        shapes.append(read_pixels(path, **options).shape)
        return read_pixels(path, **options)

    monkeypatch.setattr(module, "read_pixels", reading)
    for augmentation in (None, Augmentation(flip=True), Augmentation(crop_scale=(0.02, 1.0)), ALL):
        list(ImageBatches([file], P, augmentation=augmentation, keys=[(0,)]))
    assert [shape[1] for shape in shapes] == [100, 100, 400, 100]  # needed: 39, 39, 294, 76


@pytest.mark.skipif(not torch.cuda.is_available(), reason="memory is pinned for a GPU")
def test_pinned_images_are_the_same(paths):
    pinned = list(ImageBatches(paths, P, batch_size=4, pin=True))
    assert all(images.is_pinned() for _, images in pinned)
    assert torch.equal(all_of(pinned)[1], all_of(ImageBatches(paths, P))[1])
