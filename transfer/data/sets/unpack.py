"""Unpack untrusted archives safely."""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from tqdm.auto import tqdm

from transfer.errors import TransferError

MAX_UNPACKED_BYTES = 8 << 30  # in total
MAX_EXPANSION = 200  # unpacked bytes per byte of the archive; images hardly compress

Member = tuple[str, str, int, Callable[[], IO[bytes] | None]]  # name, kind, size, how to open it


def unpack_archive(
    archive: Path, destination: Path, *, keep: Callable[[str], str | None], limit: int = MAX_UNPACKED_BYTES
) -> Path:
    """Unpack a zip or tar archive (plain or compressed) into a new folder, whole or not at all.

    Parameters
    ----------
    archive : Path
    destination : Path
        Must not exist, or be empty.
    keep : callable
        From a member's name to its path below `destination`, or None to leave it out.
    limit : int
        Bytes that all members together may unpack to.

    Raises
    ------
    TransferError
        Not an archive, damaged, nothing to keep, or unsafe: an absolute path or ``..`` anywhere, a link or
        device among the wanted members, two members for one path, or more bytes than `limit` or `MAX_EXPANSION` allow.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise TransferError(f"cannot unpack into {destination}: it exists and is not an empty folder")
    limit = min(limit, MAX_EXPANSION * max(archive.stat().st_size, 1 << 20))
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        folder = temporary / "whole"
        folder.mkdir()
        _unpack(archive, folder, keep, limit)
        if hasattr(os, "sync"):
            os.sync()  # once for thousands of small files
        folder.replace(destination)
    except TransferError:
        raise
    except OSError as error:
        raise TransferError(f"cannot unpack {archive.name} into {destination}: {error}") from error
    except Exception as error:  # readers raise nearly any exception on broken bytes
        raise TransferError(f"the archive {archive.name} is damaged: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return destination


def _unpack(archive: Path, folder: Path, keep: Callable[[str], str | None], limit: int) -> None:
    size = 0
    written: set[str] = set()
    for name, kind, length, opened in tqdm(_members(archive), "unpacking", unit="file", disable=None):
        _refuse_outside(archive, name)
        size += length
        if size > limit:
            raise TransferError(f"the archive {archive.name} would unpack to more than {limit:,} bytes: refused")
        target = None if kind == "folder" else keep(name)
        if target is None:
            continue
        if kind != "file":
            raise TransferError(f"the archive {archive.name} holds a link or device ({name!r}): refused")
        _refuse_outside(archive, target)
        if target.casefold() in written:  # case-insensitive file systems
            raise TransferError(f"the archive {archive.name} holds {target!r} twice: refused")
        written.add(target.casefold())
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        source = opened()
        assert source is not None  # a regular file
        with source, path.open("xb") as file:
            shutil.copyfileobj(source, file)
    if not written:
        raise TransferError(f"the archive {archive.name} holds none of the expected files")


def _refuse_outside(archive: Path, name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name:
        raise TransferError(f"the archive {archive.name} holds a path outside its folder ({name!r}): refused")


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened_zip:
            for info in opened_zip.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)
                kind = "folder" if info.is_dir() else "file" if mode in (0, stat.S_IFREG) else "other"
                yield info.filename, kind, info.file_size, partial(opened_zip.open, info)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened_tar:
            for member in opened_tar:
                kind = "folder" if member.isdir() else "file" if member.isreg() else "other"
                yield member.name, kind, member.size, partial(opened_tar.extractfile, member)
    else:
        raise TransferError(f"{archive.name} is not a zip or tar archive")
