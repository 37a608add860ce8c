"""Byte ranges of remote files through fsspec: http(s), and object stores such as s3, gs and az.

A read is retried when the connection breaks, never returns more than the requested range, and over http fails if the
file is no longer the one of the first read.
"""

import asyncio
import functools
import os
import random
import re
import string
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import aiohttp
import fsspec
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from transfer.errors import get_first_line

T = TypeVar("T")

MAX_CONNECTIONS = 8  # concurrent requests
HTTP_TIMEOUT = 20.0  # seconds without a connection or a byte
MAX_RETRIES = 5  # after the first attempt
BACKOFF = 0.2  # seconds before the second retry, doubled with each further one
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)  # of HTTP
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""The extra of this package that installs the client of a protocol."""


class FileVersion(NamedTuple):
    """Identifies the content of a remote file: its size in bytes, and an ETag or modification time ("" if unknown)."""

    size: int
    validator: str


_versions: dict[str, FileVersion] = {}  # by URL; a forked process inherits them


class HttpStatusError(OSError):
    """An HTTP response with an error status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP {status} {reason}".rstrip())
        self.status = status


class RangeFileSystem(HTTPFileSystem):
    """fsspec's HTTP file system, restricted to byte ranges.

    A server without range support is refused before its whole file is in memory, and every response must be of the file
    that was read first.
    """

    def __init__(self, **options: Any) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=HTTP_TIMEOUT, sock_read=HTTP_TIMEOUT)
        super().__init__(client_kwargs={"timeout": timeout, "trust_env": True}, **options)  # proxies by environment

    def encode_url(self, url: str) -> URL:
        """Return `url` with its percent escapes as they are: a signature may cover them."""
        return URL(quote(url, safe=string.punctuation), encoded=True) if url.isascii() else URL(url)

    async def _read_range(self, url: str, start: int, size: int) -> tuple[FileVersion, bytes]:
        headers = {
            "Range": f"bytes={start}-{start + size - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": "transfer",
        }
        session = await self.set_session()
        async with session.get(self.encode_url(url), headers=headers) as response:
            version = _parse_version(response, start)
            blocks, left = [], size + 1
            while left and (block := await response.content.read(left)):
                blocks.append(block)
                left -= len(block)
            if not left:
                raise OSError("the server sent more than the requested range")
            return version, b"".join(blocks)

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        version, content = await self._read_range(url, start or 0, (end or 0) - (start or 0))
        if version != _versions.setdefault(url, version):
            raise OSError("it was changed while it was in use: start again")
        return content

    async def _info(self, url: str, **options: Any) -> dict[str, Any]:
        _versions[url], _ = await self._read_range(url, 0, 1)
        size, validator = _versions[url]
        return {"name": url, "size": size, "ETag": validator, "type": "file"}


def get_version(url: str) -> FileVersion:
    """Return the present version of the file at `url`; later reads over http must be of this version.

    Raises
    ------
    OSError
        The file cannot be read, or its server sends no ranges.
    """
    info = _retry(lambda files: files.info(url), url)
    validator = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(key)), "")
    return FileVersion(int(info["size"]), str(validator))


def fetch_range(url: str, start: int, size: int) -> bytes:
    """Return `size` bytes of the file at `url` from byte `start` on; fewer at its end.

    Raises
    ------
    OSError
        The range cannot be read, or the file was changed.
    """
    return _retry(lambda files: files.cat_file(url, start=start, end=start + size), url)


def _retry(read: Callable[[Any], T], url: str) -> T:
    """Call `read` with the file system of `url`, again after transient errors; raise OSError with a plain reason."""
    files = _file_system(url.partition("://")[0], os.getpid())
    for attempt in range(MAX_RETRIES + 1):
        if attempt:
            time.sleep(BACKOFF * (2 ** (attempt - 1)) * (attempt > 1) + BACKOFF / 2 * random.random())
        try:
            return read(files)
        except (TimeoutError, aiohttp.ClientError, FSTimeoutError, ConnectionError, HttpStatusError) as error:
            transient = not isinstance(error, HttpStatusError) or error.status in TRANSIENT_STATUSES
            if not transient or attempt == MAX_RETRIES:
                raise OSError(_reason(error)) from error
        except FileNotFoundError as error:
            raise OSError("there is no such file") from error
        except OSError:
            raise
        except ValueError as error:
            raise OSError(f"not a valid URL: {error}") from error
        except Exception as error:  # clients of object stores have exceptions of their own
            raise OSError(_reason(error)) from error
    raise AssertionError("the last attempt returns or raises")


@functools.cache
def _file_system(protocol: str, process: int) -> Any:
    """Return the client of `protocol` in this process: the connections of its parent cannot be used."""
    if protocol in ("http", "https"):
        return RangeFileSystem()
    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        extra = EXTRAS.get(protocol)
        wanted = f"pip install 'transfer-toolkit[{extra}]'" if extra else "use http(s), s3, gs or az"
        raise OSError(f"{protocol}:// has no client here: {wanted}") from error


def _parse_version(response: aiohttp.ClientResponse, start: int) -> FileVersion:
    if response.status == 200:
        raise OSError("the server sends whole files only, no ranges: use another one, or download the shards")
    if response.status != 206:
        raise HttpStatusError(response.status, response.reason or "")
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if not part or int(part[1]) != start:
        raise OSError("the server sent a different range than requested")
    return FileVersion(int(part[2]), response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _reason(error: BaseException) -> str:
    """Return what went wrong in one line."""
    if isinstance(error, asyncio.TimeoutError | FSTimeoutError):
        return f"no answer within {HTTP_TIMEOUT:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    return get_first_line(error)
