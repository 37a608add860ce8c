"""The folders that rows lie in, while other processes write to them and remove from them."""

import contextlib
import glob
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from transfer.errors import TransferError
from transfer.runtime.files import read_json


def key_of(record: dict[str, Any]) -> str:
    """Return the sha256, in hex, of all that a shelf's rows depend on."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return what a shelf's folder says that it holds; None where that is missing or damaged."""
    with contextlib.suppress(TransferError):
        record = read_json(folder / "about.json")
        if key_of(record)[:32] == folder.name:
            return record
    return None


def files_in(folder: Path, pattern: str) -> list[tuple[int, int, Path]]:
    """Return (last use in ns, bytes, path) of each file, the longest unused first."""
    found = []
    for name in glob.glob(pattern, root_dir=folder):
        with contextlib.suppress(OSError):  # removed meanwhile
            about = (folder / name).stat()
            if stat.S_ISREG(about.st_mode):
                found.append((about.st_mtime_ns, about.st_size, folder / name))
    return sorted(found)


def remove(path: Path) -> bool:
    """Remove a file, and its folders where it was the last; return whether it was there to remove."""
    try:
        path.unlink()
    except OSError:
        return False  # another process was first or, on Windows, has it open
    with contextlib.suppress(OSError):
        if set(os.listdir(path.parent)) <= {"about.json"}:
            (path.parent / "about.json").unlink(missing_ok=True)
            path.parent.rmdir()
            path.parent.parent.rmdir()
    return True
