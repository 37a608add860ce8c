import io
import os

import numpy as np
import pytest
from PIL import Image

from transfer.data.images.decode import BadImage, decode, register_heif
from transfer.errors import TransferError

GREY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def stored(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    stream.seek(0)
    return stream


def pixels(image, form="PNG", **options):
    decoded = decode(stored(image, form, **options))
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def threefold(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def test_grey_and_one_bit():
    np.testing.assert_array_equal(pixels(Image.fromarray(GREY)), threefold(GREY))
    bits = Image.fromarray(GREY > 100)
    np.testing.assert_array_equal(pixels(bits), threefold((GREY > 100) * np.uint8(255)))


def test_palette_with_and_without_transparency():
    image = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(pixels(image), np.asarray(image.convert("RGB")))
    index = np.asarray(image)
    expected = np.asarray(image.convert("RGB")).copy()
    expected[index == 3] = 255
    np.testing.assert_array_equal(pixels(image, transparency=3), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_on_white(mode):
    colour = np.array(Image.fromarray(COLOUR).convert(mode[:-1]).convert("RGB"))
    image = Image.fromarray(COLOUR).convert(mode)
    alpha = np.tile(np.array([0, 255, 128, 17], np.uint8), (12, 5))
    image.putalpha(Image.fromarray(alpha))
    opacity = alpha[..., None] / 255
    expected = colour * opacity + 255 * (1 - opacity)
    np.testing.assert_allclose(pixels(image).astype(float), expected, atol=1)


def test_a_transparent_colour_is_white():
    colour = COLOUR.copy()
    colour[0, :5] = (1, 2, 3)
    assert (pixels(Image.fromarray(colour), transparency=(1, 2, 3))[0, :5] == 255).all()


def test_cmyk():
    image = Image.fromarray(COLOUR).convert("CMYK")
    np.testing.assert_allclose(pixels(image, "TIFF").astype(int), COLOUR.astype(int), atol=1)
    smooth = Image.new("CMYK", (16, 16), (10, 80, 160, 20))
    expected = np.asarray(smooth.convert("RGB")).astype(int)
    np.testing.assert_allclose(pixels(smooth, "JPEG", quality=95).astype(int), expected, atol=4)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    deep = GREY.astype(np.uint16) * 257 + 60
    np.testing.assert_array_equal(pixels(Image.fromarray(deep), form), threefold(GREY))


@pytest.mark.parametrize(("black", "white"), [(0, 1), (0, 255), (-1, 1), (-1000, 3000)])
def test_levels_say_what_is_black_and_white(black, white):
    values = (GREY / 255 * (white - black) + black).astype(np.float32)
    decoded = np.asarray(decode(stored(Image.fromarray(values), "TIFF"), levels=(("float32", black, white),)))
    np.testing.assert_allclose(decoded, threefold(GREY), atol=1)


def test_without_levels_the_type_decides_and_not_the_content():
    """Each image alone: the brightest pixel of one must not darken the others."""
    floats = (GREY / 255).astype(np.float32)
    for peak in (0.5, 1.03, 200.0):
        floats[-1, -1] = peak
        np.testing.assert_allclose(pixels(Image.fromarray(floats), "TIFF")[:-1], threefold(GREY)[:-1], atol=1)
    integers = GREY.astype(np.int32) * 257
    integers[0, 0] = 70_000
    np.testing.assert_array_equal(pixels(Image.fromarray(integers), "TIFF")[1:], threefold(GREY)[1:])


def test_negative_values_and_what_is_not_a_number():
    values = GREY.astype(np.int32) * 257
    values[0, 0] = -5
    np.testing.assert_array_equal(pixels(Image.fromarray(values), "TIFF"), threefold(GREY))
    floats = (GREY / 255).astype(np.float32)
    floats[0, 1:4] = np.nan, np.inf, -np.inf
    assert pixels(Image.fromarray(floats), "TIFF")[0, 1:4, 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(orientation, turned, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.asarray(Image.fromarray(COLOUR[:3, :4]).resize((80, 48), Image.Resampling.BICUBIC))
    got = pixels(Image.fromarray(smooth), form, exif=exif, **({"quality": 98} if form == "JPEG" else {}))
    np.testing.assert_allclose(got.astype(int), turned(smooth).astype(int), atol=24 if form == "JPEG" else 0)


def test_malformed_exif_does_not_spoil_sound_pixels():
    got = pixels(Image.fromarray(COLOUR), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken")
    np.testing.assert_array_equal(got, COLOUR)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "lime", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}
    got = pixels(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (got == (255, 0, 0)).all()


def test_bad_files_are_named_with_a_reason(tmp_path, picture):
    whole = picture(tmp_path / "whole.jpg", size=(200, 200)).read_bytes()
    for name, content, reason in (
        ("cut.jpg", whole[: len(whole) // 2], "truncated"),
        ("text.png", b"hello", "not an image"),
        ("empty.png", b"", "not an image"),
        ("header.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 20, ""),
    ):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(BadImage, match=f"bad image .*{name}: .*{reason}") as error:
            decode(file)
        assert "\n" not in str(error.value)
    with pytest.raises(TransferError, match=r"none\.png: No such file"):
        decode(tmp_path / "none.png")


def test_small_decoding_finds_what_full_decoding_finds(tmp_path, picture):
    """A JPEG cut anywhere is bad either way, baseline or progressive."""
    image = Image.open(picture(tmp_path / "a.png", size=(300, 200)))
    for progressive in (False, True):
        content = stored(image, "JPEG", progressive=progressive).getvalue()
        for cut in np.linspace(200, len(content), 25).astype(int):
            verdicts = []
            for at_least in (None, 64):
                try:
                    decode(io.BytesIO(content[:cut]), at_least=at_least)
                    verdicts.append("sound")
                except BadImage:
                    verdicts.append("bad")
            assert verdicts[0] == verdicts[1], (progressive, cut)
        assert verdicts == ["sound", "sound"]


def test_at_least_halves_but_not_below(tmp_path, picture):
    file = picture(tmp_path / "a.jpg", size=(400, 300))
    assert decode(file).size == (400, 300)
    assert decode(file, at_least=64).size == (100, 75)
    assert decode(file, at_least=160).size == (400, 300)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(BadImage, match="not a regular file"):
            decode(tmp_path / name)


def test_postscript_is_never_run(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) (w) file\n")
    with pytest.raises(BadImage, match="PostScript is a program"):
        decode(tmp_path / "x.jpg")


def test_a_few_bytes_that_say_they_are_many_pixels(tmp_path):
    """Found by fuzzing: a GIF of 800 bytes that took half a minute."""
    Image.new("P", (9, 9)).save(tmp_path / "x.gif")
    content = bytearray((tmp_path / "x.gif").read_bytes())
    content[6:10] = (13882).to_bytes(2, "little") + (11321).to_bytes(2, "little")
    (tmp_path / "x.gif").write_bytes(content)
    with pytest.raises(BadImage, match="13882 x 11321 are more than 64,000,000 pixels"):
        decode(tmp_path / "x.gif")


def test_a_jpeg_of_more_pixels_is_decoded_smaller(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "x.jpg")
    monkeypatch.setattr("transfer.data.images.decode.MAX_PIXELS", 1024)
    assert decode(tmp_path / "x.jpg", at_least=16).size == (16, 16)
    with pytest.raises(BadImage, match="more than 1,024 pixels"):
        decode(tmp_path / "x.jpg")


def heic(array, **options):
    heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    heif.from_pillow(Image.fromarray(array)).save(stream, quality=-1, chroma=444, matrix_coefficients=0, **options)
    stream.seek(0)
    return stream


def test_heic_has_the_pixels_that_were_stored():
    large = np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))
    np.testing.assert_allclose(np.asarray(decode(heic(large))).astype(int), large, atol=1)  # stored without loss


def test_heic_without_the_package_says_what_to_install(monkeypatch):
    stream = heic(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)))
    monkeypatch.setattr("transfer.data.images.decode.has_heif", lambda: False)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])  # as if nobody had registered it
    register_heif.cache_clear()
    with pytest.raises(BadImage, match=r"bad image a: HEIC .* pip install 'transfer-toolkit\[heic\]'"):
        decode(stream, name="a")


def test_avif_needs_no_further_package(monkeypatch):
    stream = stored(Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))), "AVIF", quality=100)
    monkeypatch.setattr("transfer.data.images.decode.has_heif", lambda: False)
    assert decode(stream).size == (160, 96)


def test_broken_heic_is_a_bad_image():
    whole = heic(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))).getvalue()
    for part in (whole[: len(whole) // 2], whole[:12], whole[:11] + b"\0" * 200):
        with pytest.raises(BadImage, match="bad image x: "):
            decode(io.BytesIO(part), name="x")
