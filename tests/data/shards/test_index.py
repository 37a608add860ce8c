import contextlib
import hashlib
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.data.shards import index as shardindex
from transfer.data.shards.index import get_sample_key, read_index
from transfer.errors import TransferError

FILES = {
    "a/1.jpg": b"one" * 1000,
    "a/1.json": b'{"object": "wren", "Domain": "ink", "age": 3.5, "wet": true, "none": null, "box": [1, 2]}',
    "2.png": b"",
    "2.cls": b" 7\n",
    "2.txt": "ein Zaunkönig".encode(),
    "readme.md": b"hello",
    "._2.png": b"of a Mac",
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))


def hostile(path, *members):
    """Write a tar of headers as they are given."""
    with path.open("wb") as file:
        for info, content in members:
            file.write(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return str(path)


def member(name, content=b"", **how):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for what, value in how.items():
        setattr(info, what, value)
    return info, content


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("block", [512, 700, 1 << 20])
def test_images_with_their_places_and_labels(shard, form, block, monkeypatch):
    monkeypatch.setattr(shardindex, "_BLOCK", block)
    tar = shard(FILES, form=form)
    index = read_index(str(tar))
    content = tar.read_bytes()
    assert [name for name, *_ in index.images] == ["a/1.jpg", "2.png"]
    for name, place, size, digest in index.images:
        assert content[place : place + size] == FILES[name]
        assert digest == hashlib.sha256(FILES[name]).hexdigest()
    assert index.cells == {
        "a/1": {"object": "wren", "domain": "ink", "age": "3.5", "wet": "true", "none": ""},
        "2": {"cls": "7", "txt": "ein Zaunkönig"},
    }
    assert sorted(index.ignored) == sorted(set(FILES) - {"a/1.jpg", "a/1.json", "2.png", "2.cls", "2.txt"})


def test_it_is_kept_until_the_shard_changes(shard, monkeypatch):
    tar = shard(FILES)
    first = read_index(str(tar))
    with monkeypatch.context() as patch:
        patch.setattr(shardindex, "_scan", None)
        assert read_index(str(tar)) == first
    shard({"b.jpg": b"other", "c.jpg": b""})
    assert [name for name, *_ in read_index(str(tar)).images] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"shard": "s", "images": [[1]], "cells": {}, "ignored": 0}', "\0"])
def test_what_is_kept_may_be_damaged(shard, kept, tmp_path):
    tar = shard(FILES)
    first = read_index(str(tar))
    [file] = (tmp_path / "cache" / "shards").iterdir()
    file.write_text(kept)
    assert read_index(str(tar)) == first


def test_from_a_server_it_is_read_once(shard, server):
    server.files["/s.tar"] = content = shard(FILES).read_bytes()
    first = read_index(f"{server.url}/s.tar")
    assert server.sent == len(content) + 1
    assert read_index(f"{server.url}/s.tar") == first
    assert server.sent == len(content) + 2
    server.etag = None  # nothing tells whether it has changed
    assert read_index(f"{server.url}/s.tar") == first
    assert server.sent == 2 * len(content) + 3


@pytest.mark.parametrize(
    ("info", "says"),
    [
        (member("/etc/a.jpg"), "outside its folder"),
        (member("a/../../b.jpg"), "outside its folder"),
        (member("C:\\b.jpg"), "outside its folder"),
        (member("a.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link, a device"),
        (member("a.jpg", type=tarfile.LNKTYPE, linkname="b.jpg"), "a link, a device"),
        (member("a.jpg", type=tarfile.CHRTYPE), "a link, a device"),
        (member("a.jpg", type=tarfile.FIFOTYPE), "a link, a device"),
        (member("a.jpg", size=1 << 60), "claims 1,152,921,504,606,846,976 bytes"),
        (member("a.jpg", size=-512), "claims -512 bytes"),
        (member("a.jpg", size=5000), "ends within 'a.jpg'"),
        (member("a.json", b"x" * (2 << 20)), "claims 2,097,152 bytes"),
        (member("a.json", b"{"), "cannot read 'a.json'"),
        (member("a.json", b"[" * 100_000), "cannot read 'a.json'"),
        (member("a.json", b"7"), "an object { } was expected"),
        (member("a.cls", b"\xff"), "cannot read 'a.cls'"),
        (member("a", size=1 << 40, type=tarfile.GNUTYPE_LONGNAME), "claims 1,099,511,627,776 bytes"),
        (member("a", size=-1024, type=tarfile.XHDTYPE), "claims -1,024 bytes"),
        (member("a", size=1 << 40, type=tarfile.XHDTYPE), "claims 1,099,511,627,776 bytes"),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_what_no_shard_should_hold(tmp_path, info, says, after):
    tar = hostile(tmp_path / "s.tar", *[member("ok.jpg", b"fine")] * after, info)
    with pytest.raises(TransferError, match=says) as caught:
        read_index(tar)
    assert tar in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_name_twice(tmp_path):
    tar = hostile(tmp_path / "s.tar", member("a.jpg", b"one"), member("a.jpg", b"two"))
    with pytest.raises(TransferError, match=r"holds 'a.jpg' twice"):
        read_index(tar)


def test_sparse_files(tmp_path):
    info, content = member("a.jpg", b"x" * 512, type=tarfile.GNUTYPE_SPARSE)
    with pytest.raises(TransferError, match=r"a sparse file|damaged"):
        read_index(hostile(tmp_path / "s.tar", (info, content)))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed(tmp_path, mode):
    with tarfile.open(tmp_path / "s.tar", mode):
        pass
    with pytest.raises(TransferError, match="is compressed"):
        read_index(str(tmp_path / "s.tar"))


def test_no_cut_goes_unnoticed(shard, tmp_path):
    whole = shard({"a.jpg": b"x" * 700, "b.jpg": b"y" * 10}).read_bytes()
    cut = tmp_path / "cut.tar"
    for size in range(0, 512 + 1024 + 512 + 512 + 1, 64):
        cut.write_bytes(whole[:size])
        with pytest.raises(TransferError, match=r"damaged|cut short"):
            read_index(str(cut))
    damaged = bytearray(whole)
    damaged[512 + 1024 + 7] ^= 1  # in the second header
    cut.write_bytes(damaged)
    with pytest.raises(TransferError, match="damaged"):
        read_index(str(cut))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_bring_it_down(tmp_path, data):
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    header = info.tobuf(tarfile.PAX_FORMAT)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, 511))
        header = header[:place] + data.draw(st.binary(min_size=1, max_size=12)) + header[place + 12 :]
        header = header[:512].ljust(512, b"\0")
    summed = sum(header) - sum(header[148:156]) + 256  # a right checksum lets the rest be looked at
    header = header[:148] + b"%06o\0 " % summed + header[156:]
    tar = tmp_path / "s.tar"
    tar.write_bytes(header + b"hello".ljust(512, b"\0") + data.draw(st.binary(max_size=1024)) + bytes(1024))
    with contextlib.suppress(TransferError):
        read_index(str(tar))


@pytest.mark.parametrize(
    ("name", "expected"), [("a.jpg", "a"), ("a.b.jpg", "a"), ("x.y/a.b.jpg", "x.y/a"), ("./a", "./a"), (".a", "")]
)
def test_key(name, expected):
    assert get_sample_key(name) == expected
