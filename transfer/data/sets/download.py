"""Downloads that resume, from the first mirror that delivers."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from transfer.errors import TransferError
from transfer.runtime.files import write_json

_CHUNK = 1 << 20  # bytes
_RETRIES = 5  # consecutive broken connections without progress, per mirror


def download_file(
    urls: Sequence[str], destination: Path, *, timeout: float = 10, accept: Callable[[Path], None] | None = None
) -> Path:
    """Download a file from the first of `urls` that delivers it whole.

    A partial download lies in ``<destination>.part`` with a record of its origin. A later call resumes it if the ETag
    or Last-Modified of the server shows that the file is unchanged, and starts over otherwise.

    Parameters
    ----------
    urls : sequence of str
        Mirrors in order of preference; http or https.
    destination : Path
        Written when the download is complete.
    timeout : float
        Seconds without a byte after which a connection is abandoned.
    accept : callable, optional
        Called with the complete file; a TransferError from it rejects the file of this mirror.

    Raises
    ------
    TransferError
        No mirror delivered the file; gives the error of each.
    """
    destination = Path(destination)
    part = destination.with_name(destination.name + ".part")
    record = part.with_name(part.name + ".json")
    failures = []
    for url in urls:
        try:
            _download(url, part, record, timeout)
            if accept:
                accept(part)
        except TransferError as error:
            _forget(part, record)
            failures.append(f"{url}: {error}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {str(error) or type(error).__name__}")
        else:
            part.replace(destination)
            _forget(part, record)
            return destination
    raise TransferError(f"could not fetch {destination.name} from any mirror: {'; '.join(failures)}")


def _download(url: str, part: Path, record: Path, timeout: float) -> None:
    if not url.startswith(("https://", "http://")):
        raise ValueError("only http and https are fetched from")
    part.parent.mkdir(parents=True, exist_ok=True)
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, record, timeout):
                return
            reason: Exception = ConnectionError("the connection broke off")
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as error:
            if not part.exists():
                raise
            reason = error
        idle = idle + 1 if not part.exists() or part.stat().st_size <= before else 0
        if idle >= _RETRIES or not _validator(_recorded(record, url)):
            raise reason


def _continue(url: str, part: Path, record: Path, timeout: float) -> bool:
    """Download the missing part of the file; return whether it is complete."""
    known = _recorded(record, url)
    have = part.stat().st_size if part.exists() and known else 0
    if have and have == known.get("size"):
        return True
    request = urllib.request.Request(url, headers={"User-Agent": "transfer", "Accept-Encoding": "identity"})
    validator = _validator(known)
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if not have or error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        _forget(part, record)
        return _continue(url, part, record, timeout)
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _forget(part, record)
            raise http.client.HTTPException("the server sent a different part of the file than requested")
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        size = None if length is None else start + int(length)
        if not resumed:
            part.unlink(missing_ok=True)
            tags = {k: answer.headers[k] for k in ("ETag", "Last-Modified") if answer.headers[k]}
            write_json(record, {"url": url, "size": size, **tags})
        bar = tqdm(desc=f"fetching {part.stem}", total=size, initial=start, unit="B", unit_scale=True, disable=None)
        with part.open("ab") as file, bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        return size is None or part.stat().st_size == size


def _recorded(record: Path, url: str) -> dict[str, Any]:
    """Return the record of the partial file, empty if it is of another URL."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.get("url") == url else {}


def _validator(known: dict[str, Any]) -> str | None:
    """Return the value of an If-Range header: a strong ETag, else the date."""
    tag = known.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else known.get("Last-Modified")


def _forget(part: Path, record: Path) -> None:
    part.unlink(missing_ok=True)
    record.unlink(missing_ok=True)
