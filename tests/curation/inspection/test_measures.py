import numpy as np
import pytest
from PIL import Image, ImageFilter

from transfer.curation.inspection.measures import (
    FILE_FORMATS,
    PIXEL_MODES,
    measure_blur,
    measure_images,
    measure_pixels,
)
from transfer.disk_cache import DiskCache


def naive_blur(image, window=9):
    """Crete et al. 2007, pixel by pixel, with edge pixels repeated."""
    found = []
    for pixels in (image, image.T):  # along columns, then rows
        height, width = pixels.shape
        half = window // 2
        again = np.array(
            [
                [
                    np.mean([pixels[min(max(i + k, 0), height - 1), j] for k in range(-half, half + 1)])
                    for j in range(width)
                ]
                for i in range(height)
            ]
        )
        total = lost = 0.0
        for i in range(1, height):
            for j in range(width):
                before, after = abs(pixels[i, j] - pixels[i - 1, j]), abs(again[i, j] - again[i - 1, j])
                total, lost = total + before, lost + max(before - after, 0)
        found.append((total - lost) / total)
    return max(found)


def test_blur_is_the_published_measure():
    image = np.random.default_rng(0).random((14, 17)).astype(np.float32)
    assert measure_blur(image) == pytest.approx(naive_blur(image.astype(float)), abs=1e-5)


def test_blur_grows_with_blurring_and_is_1_without_an_edge():
    blocks = Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8))
    image = blocks.resize((128, 128), Image.Resampling.NEAREST)
    levels = [measure_pixels(image.filter(ImageFilter.GaussianBlur(radius)))[3] for radius in (0, 1, 2, 4)]
    assert levels == sorted(levels)
    assert levels[0] < 0.5 < levels[-1]
    assert measure_pixels(Image.new("L", (20, 20), 7))[3] == 1


def test_pixels_are_measured_on_a_scale_of_0_to_1():
    image = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 50, 0))
    dark, bright, contrast, _ = measure_pixels(image)
    assert (dark, bright, contrast) == (0, 1, pytest.approx(0.5))


def test_files_are_measured_upright_with_their_format_and_cached(tmp_path):
    turned = Image.new("RGB", (30, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "a.jpg", exif=exif)
    Image.new("LA", (8, 9)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"none")
    paths = np.array([str(tmp_path / name) for name in ("a.jpg", "b.png", "c.png")])
    digests, cache = np.array([f"{k}" * 64 for k in "123"]), DiskCache(tmp_path / "cache")
    found = measure_images(paths, digests, disk_cache=cache)
    assert found.width[:2].tolist() == [20, 8]
    assert found.height[:2].tolist() == [30, 9]
    assert found.orientation[:2].tolist() == [6, 1]
    assert [FILE_FORMATS[int(code)] for code in found.format[:2]] == ["JPEG", "PNG"]
    assert [PIXEL_MODES[int(code)] for code in found.mode[:2]] == ["RGB", "LA"]
    assert np.isnan(found.width[2])
    for path in paths:
        (tmp_path / path).unlink()
    again = measure_images(paths[:2], digests[:2], disk_cache=cache)
    np.testing.assert_array_equal(again.blur, found.blur[:2])
    assert again.aspect.tolist() == [1.5, 1.125]
