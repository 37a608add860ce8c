from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from course import pixels
from PIL import Image

from transfer.config.train import DataConfig
from transfer.data.duplicates import inspect_files
from transfer.data.splits import split
from transfer.data.table import ImageTable
from transfer.disk_cache import DiskCache
from transfer.training.setup import Images


@pytest.fixture
def set_of(images: ImageTable) -> Images:
    return Images(images, inspect_files(images))


def test_pixels_are_those_that_pillow_resizes(set_of: Images) -> None:
    found = pixels.read_pixels(set_of, 20)
    assert found.shape == (48, 3, 20, 20)
    for row in (0, 17, 47):
        with Image.open(set_of.table.paths[row]) as image:
            wanted = np.asarray(image.convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(found[row].astype(int) - wanted).max() <= 2


def test_images_are_decoded_once(set_of: Images, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DiskCache(tmp_path)
    decoded: list[int] = []
    batches = pixels.ImageBatches

    def counted(*args: Any, order: np.ndarray, **more: Any) -> Any:
        decoded.append(len(order))
        return batches(*args, order=order, **more)

    monkeypatch.setattr(pixels, "ImageBatches", counted)
    first = pixels.read_pixels(set_of, 16, store)
    half = Images(set_of.table.take(np.arange(24)), set_of.inspection.take(np.arange(24)))
    assert np.array_equal(pixels.read_pixels(half, 16, store), first[:24])
    assert np.array_equal(pixels.read_pixels(set_of, 16, DiskCache(tmp_path)), first)
    pixels.read_pixels(set_of, 8, store)
    assert decoded == [48, 0, 0, 48]


def test_images_are_squashed_to_a_square(tmp_path: Any, set_of: Images) -> None:
    Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[None, :, None], 10, 0).repeat(3, 2)).save(
        tmp_path / "a.png"
    )
    wide = replace(set_of.table.take(np.arange(1)), paths=np.array([str(tmp_path / "a.png")]))
    found = pixels.read_pixels(Images(wide, inspect_files(wide)), 10)
    assert found[0, 0, 5].tolist() == pytest.approx(np.arange(1.5, 40, 4), abs=1)


@pytest.mark.parametrize(("inputs", "offset", "divisor"), [("raw", 0, 1), ("unit", 0, 255)])
def test_fixed_scales(inputs: str, offset: float, divisor: float) -> None:
    found = pixels.compute_scaling(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), np.arange(2), inputs)
    assert [part.flatten().tolist() for part in found] == [[offset] * 3, [divisor] * 3]


def test_standardised_is_by_the_training_images_alone() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (6, 3, 5, 5)).astype(np.uint8)
    images[3:] = 255
    images[:, 2] = 7  # constant: standard deviation 0
    offset, divisor = pixels.compute_scaling(torch.from_numpy(images), np.arange(3), "standardised")
    wanted = images[:3].astype(float)
    np.testing.assert_allclose(offset.flatten(), wanted.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(divisor.flatten(), [*wanted.std((0, 2, 3))[:2], 1.0], rtol=1e-6)


def test_parts_are_those_of_transfer_train(set_of: Images, cache: Any) -> None:
    config = DataConfig(test=0.25, val=0.2, shots=4)
    sets = pixels.load_pixel_sets(config, set_of, 8, (0, 3))
    assert list(sets) == [0, 3]
    for seed, pixel_set in sets.items():
        wanted = split(set_of.table, set_of.inspection, test=0.25, val=0.2, shots=4, seed=seed)
        for part in ("train", "val", "test"):
            assert np.array_equal(getattr(pixel_set.parts, part), getattr(wanted, part))
    assert sets[0].pixels is sets[3].pixels
    assert not np.array_equal(sets[0].parts.test, sets[3].parts.test)
