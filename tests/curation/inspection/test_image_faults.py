from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from transfer.curation.inspection.image_faults import find_image_faults
from transfer.curation.inspection.measures import measure_images


@pytest.fixture
def ten(tmp_path):
    """Ten sharp, bright-and-dark pictures of 60 x 60."""
    rng, paths = np.random.default_rng(0), []
    for i in range(10):
        blocks = Image.fromarray(rng.integers(0, 255, (15, 15, 3), dtype=np.uint8))
        blocks.resize((60, 60), Image.Resampling.NEAREST).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    return paths


def find(paths):
    measures = measure_images(np.array([str(path) for path in paths]), np.array([f"{i}" for i in range(len(paths))]))
    return {finding.kind: finding.rows for finding in find_image_faults(measures)}


def test_sound_images_have_no_fault(ten):
    assert find(ten) == {}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("dark", lambda image: image.point(lambda v: v * 0.2)),
        ("bright", lambda image: image.point(lambda v: 231 if v < 128 else 255)),
        ("blank", lambda image: Image.new("RGB", image.size, "grey")),
        ("blurred", lambda image: image.filter(ImageFilter.GaussianBlur(6))),
        ("tiny", lambda image: image.resize((12, 12))),
        ("odd_shape", lambda image: image.crop((0, 0, 60, 18))),
    ],
)
def test_a_changed_image_is_found(ten, kind, change):
    for row in (3, 7):
        change(Image.open(ten[row])).save(ten[row])
    found = find(ten)
    assert sorted(found.pop(kind)) == [3, 7]
    assert found == {}


def test_an_image_that_exif_turns_is_found(ten, tmp_path):
    image = Image.open(ten[2])
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(ten[2], exif=exif)
    assert find(ten) == {"turned": [2]}


def test_a_set_of_blurred_and_small_images_is_no_list_of_faults(ten):
    for path in ten:
        Image.open(path).filter(ImageFilter.GaussianBlur(6)).resize((20, 20)).save(path)
    assert find(ten) == {}


def test_an_image_that_could_not_be_measured_is_no_fault(ten):
    measures = measure_images(np.array([str(path) for path in ten]), np.array([f"{i}" for i in range(10)]))
    unknown = {name: np.where(np.arange(10) == 4, np.nan, values) for name, values in vars(measures).items()}
    assert list(find_image_faults(replace(measures, **unknown))) == []
