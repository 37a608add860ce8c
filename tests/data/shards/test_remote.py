import multiprocessing

import fsspec
import pytest

from transfer.data.shards import remote
from transfer.data.shards.remote import fetch_range, get_version

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def url(server, monkeypatch):
    monkeypatch.setattr(remote, "BACKOFF", 0.0)
    server.files["/a.tar"] = CONTENT
    return f"{server.url}/a.tar"


def test_ranges_and_nothing_else_are_fetched(server, url):
    assert get_version(url) == (len(CONTENT), '"one"')
    assert server.sent == 1
    assert fetch_range(url, 0, 10) == CONTENT[:10]
    assert fetch_range(url, 5000, 700) == CONTENT[5000:5700]
    assert fetch_range(url, len(CONTENT) - 5, 700) == CONTENT[-5:]
    assert server.sent == 1 + 10 + 700 + 5


def test_broken_connections_and_a_busy_server_are_tried_again(server, url):
    server.cut_after, server.failing = [3, 0], [503, 429]
    assert fetch_range(url, 100, 50) == CONTENT[100:150]
    assert [asked for _, asked in server.asked] == ["bytes=100-149"] * 5


def test_retries_are_bounded(server, url):
    server.cut_after = [3] * 100
    with pytest.raises(OSError, match=r"payload|broken"):
        fetch_range(url, 100, 50)
    assert len(server.asked) == 1 + remote.MAX_RETRIES
    server.failing = [503] * 100
    with pytest.raises(OSError, match="HTTP 503"):
        fetch_range(url, 100, 50)


def test_permanent_errors_are_not_retried(server, url):
    with pytest.raises(OSError, match="HTTP 404"):
        get_version(url + "x")
    server.ranges = False
    with pytest.raises(OSError, match="sends whole files only"):
        get_version(url)
    assert len(server.asked) == 2


def test_no_server(monkeypatch):
    monkeypatch.setattr(remote, "MAX_RETRIES", 1)
    with pytest.raises(OSError, match=r"cannot connect: .*(refused|Connect call failed)") as caught:
        fetch_range("http://127.0.0.1:1/a.tar", 0, 1)
    assert "object at" not in str(caught.value)
    with pytest.raises(OSError, match="not a valid URL"):
        fetch_range("http://[/a.tar", 0, 1)


def test_another_file_under_the_same_name(server, url):
    get_version(url)
    server.etag = '"two"'
    with pytest.raises(OSError, match="changed while it was in use"):
        fetch_range(url, 0, 10)
    get_version(url)
    assert fetch_range(url, 0, 10) == CONTENT[:10]
    server.files["/a.tar"] = CONTENT + b"more"
    with pytest.raises(OSError, match="changed while it was in use"):
        fetch_range(url, 0, 10)


def test_escapes_in_a_url_are_sent_as_given(server, monkeypatch):
    """A server may sign the query as it is written."""
    for given, sent in (("/a.tar?sig=a%2Fb%2Bc%3D", None), ("/a%20b.tar", None), ("/c d.tar", "/c%20d.tar")):
        server.files[sent or given] = CONTENT
        assert fetch_range(server.url + given, 3, 4) == CONTENT[3:7]
    assert [path for path, _ in server.asked] == ["/a.tar?sig=a%2Fb%2Bc%3D", "/a%20b.tar", "/c%20d.tar"]


def _read_in_child(url, results):
    for start in (3, 5):
        try:
            results.put(fetch_range(url, start, 4))
        except OSError as error:
            results.put(str(error))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_too_and_notices_a_change(server, url):
    fork = multiprocessing.get_context("fork")
    assert fetch_range(url, 3, 4) == CONTENT[3:7]
    for etag, expected in (('"one"', [CONTENT[3:7], CONTENT[5:9]]), ('"two"', 2 * ["it was changed"])):
        server.etag = etag
        results = fork.Queue()
        child = fork.Process(target=_read_in_child, args=(url, results))
        child.start()
        found = [results.get(timeout=30) for _ in range(2)]
        child.join()
        assert [text[:14] if isinstance(text, str) else text for text in found] == expected
    server.etag = '"one"'
    assert fetch_range(url, 5, 4) == CONTENT[5:9]


@pytest.fixture
def stored():
    """A file in fsspec's own store in memory, read through the same interface as s3, gs and az."""
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/a.tar", CONTENT)
    yield files
    files.rm("/bucket", recursive=True)


def test_an_object_store_gives_ranges(stored):
    assert fetch_range("memory://bucket/a.tar", 5000, 700) == CONTENT[5000:5700]
    assert fetch_range("memory://bucket/a.tar", len(CONTENT) - 5, 700) == CONTENT[-5:]
    first = get_version("memory://bucket/a.tar")
    assert first.size == len(CONTENT)
    stored.pipe_file("/bucket/a.tar", CONTENT[::-1])
    assert get_version("memory://bucket/a.tar") != first
    with pytest.raises(OSError, match="no such file"):
        fetch_range("memory://bucket/b.tar", 0, 1)


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    def missing(protocol):
        raise ImportError(protocol)

    monkeypatch.setattr(fsspec, "filesystem", missing)
    remote._file_system.cache_clear()
    with pytest.raises(OSError, match=r"pip install 'transfer-toolkit\[s3\]'"):
        fetch_range("s3://bucket/a.tar", 0, 1)
    remote._file_system.cache_clear()


def test_a_store_that_breaks_off_is_tried_again(monkeypatch, stored):
    calls = []

    def breaking(path, start=None, end=None, **options):
        calls.append(path)
        if len(calls) < 3:
            raise ConnectionResetError("broke off")
        return CONTENT[start:end]

    monkeypatch.setattr(remote, "BACKOFF", 0.0)
    monkeypatch.setattr(stored, "cat_file", breaking)
    assert fetch_range("memory://bucket/a.tar", 3, 4) == CONTENT[3:7]
    assert len(calls) == 3
