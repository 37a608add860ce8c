import numpy as np
import pytest

from transfer.data.sets import download as module
from transfer.data.sets.download import download_file
from transfer.errors import TransferError

CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 10_000)


def left(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_comes_whole(server, tmp_path):
    server.files["/a"] = CONTENT
    assert download_file([server.url + "/a"], tmp_path / "got" / "a.zip") == tmp_path / "got" / "a.zip"
    assert (tmp_path / "got" / "a.zip").read_bytes() == CONTENT
    assert left(tmp_path / "got") == ["a.zip"]


def test_cut_connections_are_resumed(server, tmp_path):
    server.files["/a"] = CONTENT
    server.cut_after = [100_000, 50_000]
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [("/a", None), ("/a", "bytes=100000-"), ("/a", "bytes=150000-")]


def test_a_later_call_goes_on(server, tmp_path):
    server.files["/a"] = CONTENT
    server.cut_after = [100_000] + [0] * 20
    with pytest.raises(TransferError, match="the connection broke off"):
        download_file([server.url + "/a"], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    server.cut_after, server.asked = [], []
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == [("/a", "bytes=100000-")]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_changed_file_and_a_server_without_ranges_begin_anew(server, tmp_path, ranges):
    server.files["/a"] = CONTENT
    server.cut_after = [100_000] + [0] * 20
    with pytest.raises(TransferError):
        download_file([server.url + "/a"], tmp_path / "a")
    server.cut_after, server.ranges = [], ranges
    server.files["/a"] = CONTENT[::-1] if ranges else CONTENT
    server.etag = '"two"' if ranges else server.etag
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["/a"]


def test_without_a_validator_nothing_is_resumed(server, tmp_path):
    server.files["/a"], server.etag = CONTENT, None
    server.cut_after = [100_000]
    with pytest.raises(TransferError):
        download_file([server.url + "/a"], tmp_path / "a")
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked[-1] == ("/a", None)


def test_a_file_that_shrank_begins_anew(server, tmp_path):
    server.files["/a"] = CONTENT
    server.cut_after = [100_000] + [0] * 20
    with pytest.raises(TransferError):
        download_file([server.url + "/a"], tmp_path / "a")
    server.cut_after, server.files["/a"] = [], CONTENT[:50_000]  # with its old ETag: the server answers 416
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT[:50_000]


def test_the_next_mirror_is_taken_and_begins_anew(server, tmp_path):
    server.files |= {"/a": CONTENT, "/b": CONTENT[::-1]}
    server.cut_after = [100_000] + [0] * module._RETRIES
    download_file([server.url + "/none", server.url + "/a", server.url + "/b"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]
    assert server.asked[-1] == ("/b", None)


def test_all_failures_are_listed(server, tmp_path):
    server.status["/broken"] = 503
    with pytest.raises(TransferError) as error:
        download_file(
            [server.url + "/none", server.url + "/broken", "file:///etc/hosts"], tmp_path / "a.zip", timeout=5
        )
    text = str(error.value)
    assert "could not fetch a.zip from any mirror" in text
    assert f"{server.url}/none: HTTP Error 404" in text
    assert f"{server.url}/broken: HTTP Error 503" in text
    assert "file:///etc/hosts: only http and https" in text
    assert "\n" not in text
    assert left(tmp_path) == []


def test_a_rejected_file_is_not_kept(server, tmp_path):
    server.files |= {"/page": b"<html>", "/a": CONTENT}

    def accept(file):
        if file.read_bytes() != CONTENT:
            raise TransferError("wrong content")

    download_file([server.url + "/page", server.url + "/a"], tmp_path / "a", accept=accept)
    assert (tmp_path / "a").read_bytes() == CONTENT
    with pytest.raises(TransferError, match="/page: wrong content"):
        download_file([server.url + "/page"], tmp_path / "b", accept=accept)
    assert left(tmp_path) == ["a"]


def test_what_is_complete_is_not_fetched_twice(server, tmp_path):
    server.files["/a"] = CONTENT

    def killed(file):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_file([server.url + "/a"], tmp_path / "a", accept=killed)
    server.asked = []
    download_file([server.url + "/a"], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert server.asked == []
