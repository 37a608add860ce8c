import asyncio

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from upload_files import HOSTILE, encode, make_form

from transfer.config.serving import ServeLimitsConfig
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import read_pixels
from transfer.server.uploads import (
    BodyReader,
    RequestRefused,
    UploadedFile,
    check_image,
    clean_name,
    decode_upload,
    split_form,
)

LIMITS = ServeLimitsConfig()
OWN = Preprocessing((3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0)


async def chunks(*parts, pause=0.0):
    for part in parts:
        await asyncio.sleep(pause)
        yield part


def read(reader, stream, most):
    return asyncio.run(reader.read(stream, most))


def test_a_body_is_read_whole_and_refused_when_it_grows_too_large():
    reader = BodyReader(LIMITS)
    assert read(reader, chunks(b"ab", b"", b"c"), 3) == b"abc"
    with pytest.raises(RequestRefused) as refused:
        read(reader, chunks(b"ab", b"cd"), 3)
    assert (refused.value.status, refused.value.code) == (413, "too_large")


def test_a_slow_sender_is_refused():
    with pytest.raises(RequestRefused) as refused:
        read(BodyReader(ServeLimitsConfig(timeout=0.05)), chunks(b"a", b"b", b"c", pause=0.04), 9)
    assert (refused.value.status, refused.value.code) == (408, "too_slow")


def test_all_bodies_together_are_bounded():
    reader = BodyReader(LIMITS)
    assert reader.reserve("1000", 2000) == 1000
    while reader.held + reader.batch_bytes <= reader.room:
        reader.reserve(None, reader.batch_bytes)
    with pytest.raises(RequestRefused) as refused:
        reader.reserve(None, reader.batch_bytes)
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    with pytest.raises(RequestRefused, match="more than 20 MB"):
        reader.reserve("20000001", 20_000_000)
    for wrong in ("-1", "x", "1e3", "", "9" * 19):
        with pytest.raises(RequestRefused, match="no number"):
            reader.reserve(wrong, 10)


FILES = st.lists(st.tuples(st.text("abcé .-", max_size=9), st.binary(max_size=40)), max_size=5)


@given(FILES)
def test_forms_are_split_as_they_were_made(files):
    body, headers = make_form(files, boundary="---------limit-of-the-form")
    expected = [UploadedFile(clean_name(name), content) for name, content in files]
    if files:
        assert split_form(headers["Content-Type"], body, 5) == expected


def test_fields_that_are_no_files_are_ignored_and_quoted_names_read():
    body = (
        b"preamble\r\n--b\r\nContent-Disposition: form-data; name=label\r\n\r\nmug\r\n"
        b'--b\r\nContent-Disposition: form-data; name=f; filename="C:\\\\x\\\\a \\"b\\".jpg"\r\n\r\nx\r\n'
        b"--b\r\ncontent-disposition: form-data; name=f; filename=plain.png\r\n\r\ny\r\n--b--\r\nepilogue"
    )
    files = split_form('multipart/form-data; boundary="b"', body, 9)
    assert [file.content for file in files] == [b"x", b"y"]
    assert files[1].name == "plain.png"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"--b--", 400),
        ("multipart/form-data; boundary=b", b"", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nno headers", 400),
        ("multipart/form-data; boundary=b", make_form([("a", b"x")], "b")[0][:-6], 400),
        ("multipart/form-data; boundary=b", make_form([("a", b"x")] * 4, "b")[0], 413),
    ],
)
def test_damaged_forms_are_refused(kind, body, status):
    with pytest.raises(RequestRefused) as refused:
        split_form(kind, body, 3)
    assert refused.value.status == status


@given(st.text())
def test_names_of_files_are_short_and_harmless(name):
    found = clean_name(name)
    assert 0 < len(found) <= 200
    assert not set(found) & set("/\\\x00\n\r")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_refused_with_a_reason(name):
    def take():
        check_image(HOSTILE[name], ServeLimitsConfig(max_megapixels=40))
        decode_upload(HOSTILE[name], OWN)

    with pytest.raises(RequestRefused) as refused:
        take()
    assert refused.value.status in (400, 413, 415, 422)
    assert refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif")],
)
def test_images_are_seen_as_in_training(kind, suffix):
    content = encode("green", kind, (50, 40))
    assert check_image(content, LIMITS) == suffix
    found = decode_upload(content, OWN)
    assert (found.height, found.width) == (40, 50)
    assert torch.equal(found.pixels, prepare(read_pixels(content, at_least=OWN.needed), OWN))


WHOLE = {kind: encode("red", kind, (24, 20)) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}


@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    st.integers(0, 4000),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(kind, changes, length):
    content = bytearray(WHOLE[kind])
    for place, value in changes:
        content[place % len(content)] = value
    content = bytes(content[: max(1, length)])
    status = 200
    try:
        check_image(content, ServeLimitsConfig(max_megapixels=1))
        assert decode_upload(content, OWN).pixels.shape == (3, 32, 32)
    except RequestRefused as refused:
        status = refused.status
    assert status in (200, 413, 415, 422)


def test_photographs_of_telephones_are_read():
    heif = pytest.importorskip("pillow_heif", reason="needs the extra 'heic'")
    heif.register_heif_opener()
    content = encode("blue", "HEIF", (64, 48))
    assert check_image(content, LIMITS) == ".heic"
    assert decode_upload(content, OWN).width == 64


def test_limits_of_bytes_and_pixels():
    content = encode(size=(100, 100))
    with pytest.raises(RequestRefused, match="megapixels"):
        check_image(content, ServeLimitsConfig(max_megapixels=0.009))
    with pytest.raises(RequestRefused, match="MB"):
        check_image(content, ServeLimitsConfig(max_megabytes=0.001))
