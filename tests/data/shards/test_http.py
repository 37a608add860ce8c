import pytest
import urllib3

from transfer.data.shards import http
from transfer.data.shards.http import fetch_range, version

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def url(server, monkeypatch):
    monkeypatch.setattr(http, "RETRIES", http.RETRIES.new(backoff_factor=0, backoff_jitter=0))
    server.files["/a.tar"] = CONTENT
    return f"{server.url}/a.tar"


def test_ranges_and_nothing_else_are_fetched(server, url):
    assert version(url) == (len(CONTENT), '"one"')
    assert server.sent == 1
    assert fetch_range(url, 0, 10) == CONTENT[:10]
    assert fetch_range(url, 5000, 700) == CONTENT[5000:5700]
    assert fetch_range(url, len(CONTENT) - 5, 700) == CONTENT[-5:]
    assert server.sent == 1 + 10 + 700 + 5


def test_broken_connections_and_a_busy_server_are_tried_again(server, url):
    server.cut_after, server.failing = [3, 0], [503, 429]
    assert fetch_range(url, 100, 50) == CONTENT[100:150]
    assert [asked for _, asked in server.asked] == ["bytes=100-149"] * 5


def test_but_not_for_ever(server, url):
    server.cut_after = [3] * 100
    with pytest.raises(OSError, match=r"IncompleteRead|broken"):
        fetch_range(url, 100, 50)
    assert len(server.asked) == 1 + http.RETRIES.total
    server.failing = [503] * 100
    with pytest.raises(OSError, match="HTTP 503"):
        fetch_range(url, 100, 50)


def test_what_cannot_be_mended_is_not_tried_again(server, url):
    with pytest.raises(OSError, match="HTTP 404"):
        version(url + "x")
    server.ranges = False
    with pytest.raises(OSError, match="sends whole files only"):
        version(url)
    assert len(server.asked) == 2


def test_no_server(monkeypatch):
    monkeypatch.setattr(http, "RETRIES", urllib3.Retry(1))
    with pytest.raises(OSError, match="refused") as caught:
        fetch_range("http://127.0.0.1:1/a.tar", 0, 1)
    assert "object at" not in str(caught.value)
    with pytest.raises(OSError, match="Failed to parse"):
        fetch_range("http://[/a.tar", 0, 1)


def test_another_file_under_the_same_name(server, url):
    version(url)
    server.etag = '"two"'
    with pytest.raises(OSError, match="changed while it was in use"):
        fetch_range(url, 0, 10)
    version(url)
    assert fetch_range(url, 0, 10) == CONTENT[:10]
    server.files["/a.tar"] = CONTENT + b"more"
    with pytest.raises(OSError, match="changed while it was in use"):
        fetch_range(url, 0, 10)
