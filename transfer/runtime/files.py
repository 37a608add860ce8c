"""Atomic file writes, checked JSON reads, and the cache folder."""

import contextlib
import errno
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import platformdirs
from safetensors import SafetensorError

from transfer.errors import TransferError
from transfer.runtime.escape import escape_unprintable

_MAX_JSON_DEPTH = 64  # levels; files of this package have fewer than ten
# A list of numbers on several lines of indented JSON; no string contains a line break.
_NUMBER_LISTS = re.compile(r"(?<=\[)\n\s+[-+.\deE]+(?:,\n\s+[-+.\deE]+)*\n\s+(?=\])")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    A process killed at any moment leaves either the old file or the new one, complete.

    Raises
    ------
    TransferError
        The folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error if the disk is full
        raise TransferError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write `text` to `path` atomically as UTF-8; undecodable bytes of file names become ``\udcff``."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON, with each list of numbers on one line."""
    text = escape_unprintable(json.dumps(value, indent=2, ensure_ascii=False), keep="\n")
    write_text(path, _NUMBER_LISTS.sub(lambda found: " ".join(found[0].split()), text) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from an untrusted source.

    Raises
    ------
    ValueError
        The text is not valid JSON, or is nested more than 64 levels deep.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(_MAX_JSON_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _children(outer)]
    if level:
        raise ValueError("it is nested too deeply")
    return value


def _children(value: dict | list) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def read_json(path: str | os.PathLike[str], kind: type = dict) -> Any:
    """Return the value of a JSON file from an untrusted source.

    Raises
    ------
    TransferError
        The file cannot be read, is not valid JSON, or its value is not of type `kind`.
    """
    try:
        with open_regular(path) as file:
            value = parse_json(file.read())
        if not isinstance(value, kind):
            raise ValueError(f"it does not hold a {kind.__name__}")
        return value
    except (OSError, ValueError) as error:
        raise TransferError(f"cannot read {path} as JSON: {error}") from error


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file to read its bytes; a pipe or device, which may never end, raises an OSError."""
    return open(path, "rb", opener=_open_regular)


def open_text(path: str | os.PathLike[str], mode: Literal["r", "w"] = "r") -> TextIO:
    """Open a CSV file as UTF-8; undecodable bytes of file names are preserved."""
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="")


def _open_regular(path: str, flags: int) -> int:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.open(path, flags)


def get_cache_folder(*parts: str) -> Path:
    """Return a path below the cache folder: ``$TRANSFER_CACHE``, else the system's folder for caches."""
    root = os.environ.get("TRANSFER_CACHE") or platformdirs.user_cache_dir("transfer", appauthor=False)
    return Path(root).expanduser().joinpath(*parts)
