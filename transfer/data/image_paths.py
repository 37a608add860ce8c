"""Image files that a user names: files, folders, patterns, shards, or a list of such."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from transfer.data.folders import image_suffixes
from transfer.data.shards.address import parse
from transfer.data.shards.reader import find_shards, members
from transfer.errors import TransferError


def find_images(names: Sequence[str], stdin: TextIO | None = None) -> list[str]:
    """Return the images that `names` stand for: files, folders (searched), globs, shards, or ``-``: a list on `stdin`.

    Raises
    ------
    TransferError
        A name that stands for nothing.
    """
    found: list[str] = []
    suffixes = image_suffixes()
    for name in names:
        if name == "-":
            found += find_images([line.rstrip("\n") for line in stdin or sys.stdin if line.strip()])
            continue
        if parse(name):  # an image inside a shard, as predictions.csv names it
            found.append(name)
            continue
        if shards := find_shards(name):
            found += members(shards)
            continue
        path = Path(name).expanduser()
        if path.is_dir():
            some = sorted(file for file in _searched(str(path)) if Path(file).suffix.lower() in suffixes)
        else:
            some = [str(path)] if path.is_file() else sorted(_matching(path))
        if not some:
            raise TransferError(f"no image at {name}: give files, folders, globs, or '-' and a list on standard input")
        found += some
    if not found:
        raise TransferError("no image given: name files, folders or globs, or '-' to read a list from standard input")
    return found


def _searched(folder: str) -> Iterator[str]:
    """Yield the files below `folder`, however deep; links to folders, which may lead in circles, are not gone into."""
    pending = [folder]
    while pending:
        inner = pending.pop()
        try:
            with os.scandir(inner) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif _is_file(entry):
                        yield entry.path
        except PermissionError as error:
            raise TransferError(f"cannot read the folder {inner}: {error.strerror}") from None
        except OSError:  # gone meanwhile, or too deep for a path
            continue


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except PermissionError:
        raise
    except OSError:  # a link in a circle
        return False


def _matching(pattern: Path) -> Iterator[str]:
    """Yield the files that match a glob; ``**`` does not go into links to folders."""
    root = Path(pattern.anchor)
    hidden = pattern.name.startswith(".")
    try:
        for path in root.glob(str(pattern.relative_to(root))) if pattern.name else ():
            if path.is_file() and (hidden or not path.name.startswith(".")):
                yield str(path)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{pattern} is no pattern that can be searched for: {error}") from error
