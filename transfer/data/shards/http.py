"""Ranges of a file on a web server: retried, never more than was asked for, and of the same file each time."""

import functools
import re
import urllib.request
from typing import NamedTuple

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError

CONNECTIONS = 8  # to one server at a time
TIMEOUT = 20.0  # seconds without an answer or a byte
RETRIES = urllib3.Retry(
    5, backoff_factor=0.2, backoff_jitter=0.1, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)


class Version(NamedTuple):
    """Which file it is that a server sends: its size in bytes, and what changes with its content ("" if unknown)."""

    size: int
    validator: str


_seen: dict[str, Version] = {}  # by URL, in this process


def version(url: str) -> Version:
    """Return which file is at `url` now; ranges that are fetched from now on must be of this one.

    Raises
    ------
    OSError
        It cannot be had, or its server sends no ranges.
    """
    _seen[url] = _ask(url, 0, 1)[0]
    return _seen[url]


def fetch_range(url: str, start: int, size: int) -> bytes:
    """Return `size` bytes of the file at `url` from byte `start` on; fewer where it ends.

    Raises
    ------
    OSError
        They cannot be had, or the file is no longer the one that it was.
    """
    now, content = _ask(url, start, size)
    if now != _seen.setdefault(url, now):
        raise OSError("it was changed while it was in use: start again")
    return content


def _ask(url: str, start: int, size: int) -> tuple[Version, bytes]:
    """Ask for one range, again where the connection breaks off on the way."""
    headers = {
        "Range": f"bytes={start}-{start + size - 1}",
        "Accept-Encoding": "identity",
        "User-Agent": "transfer",
    }
    retries = RETRIES
    while True:
        try:
            answer = _pool(url).request(
                "GET", url, headers=headers, retries=retries, timeout=TIMEOUT, preload_content=False
            )
            try:
                found = _version(answer, start)
                content = answer.read(size + 1)
                if len(content) > size:
                    raise OSError("the server sent more than the range that was asked for")
            except BaseException:
                answer.close()  # not to be used again with a part unread
                raise
            answer.release_conn()
            return found, content
        except (LocationValueError, MaxRetryError) as error:
            raise OSError(_reason(error)) from error
        except HTTPError as error:  # broke off on the way, of which urllib3 knows nothing
            try:
                retries = retries.increment("GET", url, error=error)
            except MaxRetryError:
                raise OSError(_reason(error)) from error
            retries.sleep()


def _version(answer: urllib3.BaseHTTPResponse, start: int) -> Version:
    if answer.status == 200:
        raise OSError("the server sends whole files only, no ranges: use another one, or download the shards")
    if answer.status != 206:
        raise OSError(f"HTTP {answer.status} {answer.reason or ''}".rstrip())
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if not part or int(part[1]) != start:
        raise OSError("the server sent another range than was asked for")
    return Version(int(part[2]), answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")


def _reason(error: BaseException) -> str:
    """Return what went wrong, without the objects that urllib3 shows."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return _reason(inner)
    text = inner if isinstance(inner, str) else str(error)
    return re.sub(r"<[^>]*>:?\s*|\w+\(host=.*?\): ", "", text) or type(error).__name__


def _pool(url: str) -> urllib3.PoolManager:
    """Return the connections for `url`, by way of the proxy that the environment names."""
    place = urllib3.util.parse_url(url)
    through = urllib.request.getproxies().get(place.scheme or "")
    return _connections(None if not through or urllib.request.proxy_bypass(place.netloc or "") else through)


@functools.cache
def _connections(proxy: str | None) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS) if proxy else urllib3.PoolManager(maxsize=CONNECTIONS)
