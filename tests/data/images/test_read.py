import io

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from transfer.data.images import read as module
from transfer.data.images.decode import BadImage, decode
from transfer.data.images.read import DECODER, read_pixels, to_image, to_tensor

SMALL = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PICTURE = Image.fromarray(SMALL).resize((151, 113), Image.Resampling.BICUBIC)


def content(image=PICTURE, form="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def as_decoded(stored, at_least=None):
    return np.asarray(decode(io.BytesIO(stored), at_least=at_least)).transpose(2, 0, 1)


@pytest.fixture
def torchvisions(monkeypatch):
    """Count what torchvision decodes."""
    decoded = []
    monkeypatch.setattr(
        module, "decode_jpeg", lambda *a, f=module.decode_jpeg, **k: decoded.append(f(*a, **k)) or decoded[-1]
    )
    return decoded


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 75, 98])
def test_plain_jpegs_are_torchvisions_and_the_same(mode, progressive, subsampling, quality, torchvisions):
    stored = content(PICTURE.convert(mode), progressive=progressive, subsampling=subsampling, quality=quality)
    got = read_pixels(stored)
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got, as_decoded(stored))
    assert len(torchvisions) == 1


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "stored",
    [content(PICTURE.convert("CMYK")), content(xmp=XMP), content(form="MPO", save_all=True, append_images=[PICTURE])]
    + [content(exif=oriented(n)) for n in range(2, 9)]
    + [content(PICTURE.convert(mode), "PNG") for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")]
    + [content(exif=oriented(6), form="PNG"), content(form="PNG", transparency=(1, 2, 3))]
    + [content(PICTURE.convert(mode), "TIFF") for mode in ("RGB", "CMYK", "I;16", "F", "I", "LAB", "YCbCr")]
    + [content(form=form) for form in ("GIF", "WEBP", "BMP", "PPM", "ICO", "TGA")],
)
def test_all_else_is_pils(stored, torchvisions):
    try:
        Image.open(io.BytesIO(stored)).load()
    except OSError:
        pytest.skip("this version of Pillow cannot read what it wrote")  # a YCbCr TIFF, with 12.0
    np.testing.assert_array_equal(read_pixels(stored), as_decoded(stored))
    assert not torchvisions


@pytest.mark.parametrize("number", [0, 1, 9])
def test_an_orientation_that_turns_nothing(number):
    stored = content(exif=oriented(number))
    np.testing.assert_array_equal(read_pixels(stored), as_decoded(stored))


def test_malformed_exif_does_not_spoil_sound_pixels():
    stored = content(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    np.testing.assert_array_equal(read_pixels(stored), as_decoded(stored))


def test_only_what_is_far_too_large_is_scaled(torchvisions):
    stored = content(quality=90)
    assert read_pixels(stored, at_least=57).shape == (3, 113, 151)
    assert len(torchvisions) == 1
    for at_least, shape in ((56, (3, 57, 76)), (28, (3, 29, 38)), (9, (3, 15, 19)), (1, (3, 15, 19))):
        got = read_pixels(stored, at_least=at_least)
        assert got.shape == shape
        np.testing.assert_array_equal(got, as_decoded(stored, at_least))
    assert read_pixels(content(form="PNG"), at_least=10).shape == (3, 113, 151)
    assert len(torchvisions) == 1


def test_a_path_a_string_and_bytes_are_read_alike(tmp_path):
    for form in ("JPEG", "PNG"):
        file = tmp_path / "a.image"
        file.write_bytes(content(form=form))
        for source in (file, str(file)):
            assert torch.equal(read_pixels(source), read_pixels(file.read_bytes()))


def verdict(function, *args, **options):
    try:
        return np.asarray(function(*args, **options))
    except BadImage as error:
        return str(error)


OLD = tuple(int(part) for part in torchvision.__version__.split(".")[:2]) < (0, 22)


@pytest.mark.parametrize("at_least", [None, 40])
@pytest.mark.parametrize(
    "progressive",
    [False, pytest.param(True, marks=pytest.mark.skipif(OLD, reason="smooths scans that are missing in another way"))],
)
def test_broken_files_are_judged_alike(progressive, at_least):
    """Cut anywhere, a bit flipped, bytes overwritten: the same pixels, or the same words."""
    whole = content(progressive=progressive)
    rng = np.random.default_rng(0)
    broken = [
        whole[:cut] for cut in (0, 1, 3, 150, *range(len(whole) - 5, len(whole)), *rng.integers(len(whole), size=20))
    ]
    for place in rng.integers(len(whole) - 30, size=60):
        flipped, garbled = bytearray(whole), bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        garbled[place : place + 30] = rng.bytes(30)
        broken += [bytes(flipped), bytes(garbled)]
    good = 0
    for stored in broken:
        ours = verdict(read_pixels, stored, name="it", at_least=at_least)
        theirs = verdict(decode, io.BytesIO(stored), name="it", at_least=at_least)
        if isinstance(theirs, str):
            assert ours == theirs
        else:
            np.testing.assert_array_equal(ours, theirs.transpose(2, 0, 1))
            good += 1
    assert 0 < good < len(broken)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(content()[:-300])
    with pytest.raises(BadImage, match=r"^bad image .*cut\.jpg: image file is truncated"):
        read_pixels(tmp_path / "cut.jpg")
    with pytest.raises(BadImage, match=r"^bad image .*none\.jpg: No such file"):
        read_pixels(tmp_path / "none.jpg")
    with pytest.raises(BadImage, match=r"^bad image bytes: not an image"):
        read_pixels(b"hello")
    with pytest.raises(BadImage, match=r"^bad image a cat: not an image"):
        read_pixels(b"hello", name="a cat")


def test_without_torchvisions_decoder_pil_gives_the_same(monkeypatch):
    stored = content()
    expected = read_pixels(stored)
    monkeypatch.setattr(module, "decode_jpeg", None)
    assert torch.equal(read_pixels(stored), expected)


def test_nothing_warns(recwarn):
    read_pixels(content())
    read_pixels(content(form="PNG"))
    assert not [w for w in recwarn if not issubclass(w.category, DeprecationWarning)]


def test_images_and_tensors_are_each_others_inverse():
    pixels = to_tensor(PICTURE)
    assert pixels.shape == (3, 113, 151)
    assert pixels[:, 5, 7].tolist() == list(PICTURE.getpixel((7, 5)))
    pixels[0, 0, 0] ^= 255  # memory of its own, writable
    assert PICTURE.getpixel((0, 0))[0] != pixels[0, 0, 0]
    assert torch.equal(to_tensor(to_image(pixels)), pixels)
    assert torch.equal(to_tensor(to_image(pixels[:, 3:9, 2:5])), pixels[:, 3:9, 2:5])


def test_the_decoder_names_what_the_pixels_depend_on():
    for part in ("pillow", "libjpeg-turbo", "torchvision", "rules 2"):
        assert part in DECODER
