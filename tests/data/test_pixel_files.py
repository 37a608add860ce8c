import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.data.images.decode import decode
from transfer.data.pixel_files import InputError, image_files
from transfer.errors import TransferError
from transfer.estimator import TransferClassifier
from transfer.runtime.files import get_cache_folder


def test_paths_and_tables_are_taken_as_they_are(images):
    with image_files(images) as paths:
        assert paths is images.paths
    with image_files([Path(path) for path in images.paths[:2]]) as paths:
        assert paths.tolist() == images.paths[:2].tolist()
    with image_files(images.paths[:2].reshape(2, 1)) as paths:
        assert paths.tolist() == images.paths[:2].tolist()


def test_pixels_become_files_that_decode_to_them_and_go(pixels):
    for given in (pixels[:3], (pixels[:3] / 255).astype(np.float32), [Image.fromarray(x) for x in pixels[:3]]):
        with image_files(given) as paths:
            again = [np.asarray(decode(path)) for path in paths]
            assert all(Path(path).parent.parent == get_cache_folder("pixels") for path in paths)
        np.testing.assert_array_equal(again, pixels[:3])
        assert not any(Path(path).exists() for path in paths)


def test_images_of_any_mode_and_size(pixels):
    several = [Image.new("L", (5, 7), 9), Image.new("RGBA", (3, 3), (1, 2, 3, 0)), pixels[0][:9]]
    with image_files(several) as paths:
        sizes = [decode(path).size for path in paths]
    assert sizes == [(5, 7), (3, 3), (32, 9)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 9)), r"X has shape \(4, 9\), expected paths"),
        (np.zeros((4, 9, 9, 1)), r"X has shape \(4, 9, 9, 1\)"),
        (np.full((2, 4, 4, 3), 255.0), r"X\[0\] has values from 255 to 255: float images lie in \[0, 1\]"),
        (np.full((2, 4, 4, 3), np.nan), r"without NaN or inf"),
        (np.zeros((2, 4, 4, 3), int), r"X\[0\] is of int64, expected uint8"),
        ([np.zeros((4, 4))], r"X\[0\] has shape \(4, 4\)"),
        ([], "X has 0 images"),
        ("one.png", "X is one image"),
        (3, "X is a int"),
        ([Image.new("L", (2, 2)), "a.png"], r"X\[1\] is a path among pixels"),
    ],
)
def test_other_input_is_a_value_error(given, message):
    with pytest.raises(ValueError, match=message) as caught, image_files(given):
        pass
    assert isinstance(caught.value, InputError)


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Put the cache where no folder can be made, and the system's temporary folder into an empty one."""
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_without_a_writable_cache_pixels_go_to_the_temporary_folder(pixels, no_cache, caplog):
    with image_files(pixels[:2]) as paths:
        assert all(Path(path).parent.parent == no_cache for path in paths)
        np.testing.assert_array_equal([np.asarray(decode(path)) for path in paths], pixels[:2])
    assert not list(no_cache.iterdir())
    assert "cannot write the pixels to" in caplog.text


def test_on_a_full_disk_pixels_go_to_the_temporary_folder(pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    save = Image.Image.save

    def full(self, path, **how):
        if str(path).startswith(str(tmp_path / "cache")) and not str(path).endswith("0.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, **how)

    monkeypatch.setattr(Image.Image, "save", full)
    with image_files(pixels[:3]) as paths:
        assert not any(path.startswith(str(tmp_path / "cache")) for path in paths)
    assert not list((tmp_path / "cache" / "pixels").iterdir())


def test_without_any_place_one_line_says_so(pixels, no_cache, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(no_cache.parent / "file"))
    with pytest.raises(TransferError, match=r"cannot write the pixels to .*let \$TRANSFER_CACHE or \$TMPDIR"):
        image_files(pixels[:2]).__enter__()


@pytest.mark.usefixtures("no_cache")
def test_a_classifier_of_arrays_needs_no_cache(pixels, images):
    labels = images.object[:24]
    classifier = TransferClassifier("glyphnet", device="cpu").fit(pixels[:24], labels)
    assert classifier.predict(pixels[:24]).shape == (24,)
