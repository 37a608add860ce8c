"""Files written whole or not at all, and where the cache lies."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
from safetensors import SafetensorError

from transfer.errors import TransferError


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    A process killed at any moment leaves the old file or the new one, never a part of either.

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
    except (OSError, SafetensorError) as error:  # which safetensors makes of a full disk
        raise TransferError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cache_folder(*parts: str) -> Path:
    """Return a folder inside the user's cache: ``TRANSFER_CACHE``, else the system's own place for caches."""
    root = os.environ.get("TRANSFER_CACHE") or platformdirs.user_cache_dir("transfer", appauthor=False)
    return Path(root).expanduser().joinpath(*parts)
