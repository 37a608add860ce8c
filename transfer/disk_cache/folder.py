"""The folders of the disk cache. Other processes may write to them and remove from them at any time."""

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


def hash_record(record: dict[str, Any]) -> str:
    """Return the key of a row cache: the sha256, in hex, of everything that its rows depend on."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record in the folder of a row cache; None if it is missing or damaged."""
    with contextlib.suppress(TransferError):
        record = read_json(folder / "about.json")
        if hash_record(record)[:32] == folder.name:
            return record
    return None


def list_files(folder: Path, pattern: str) -> list[tuple[int, int, Path]]:
    """Return (last use in ns, bytes, path) of each file that matches `pattern`, least recently used first."""
    found = []
    for name in glob.glob(pattern, root_dir=folder):
        with contextlib.suppress(OSError):  # removed by another process
            about = (folder / name).stat()
            if stat.S_ISREG(about.st_mode):
                found.append((about.st_mtime_ns, about.st_size, folder / name))
    return sorted(found)


def remove_file(path: Path) -> bool:
    """Remove a file, and its folders if they are then empty; return whether the file was removed."""
    try:
        path.unlink()
    except OSError:
        return False  # removed by another process, or open in one on Windows
    with contextlib.suppress(OSError):
        if set(os.listdir(path.parent)) <= {"about.json"}:
            (path.parent / "about.json").unlink(missing_ok=True)
            path.parent.rmdir()
            path.parent.parent.rmdir()
    return True
