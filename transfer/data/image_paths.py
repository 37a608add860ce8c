"""Find the images that a user names: files, folders, globs, shards, or a list on standard input."""

import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from transfer.data.images.file_kinds import describe_left_out
from transfer.data.images.image_tree import walk_images
from transfer.data.left_out import LeftOut
from transfer.data.shards.address import parse_address
from transfer.data.shards.reader import find_shards, list_members
from transfer.errors import TransferError


def find_images(
    names: Sequence[str], stdin: TextIO | None = None, *, ignored: list[LeftOut] | None = None
) -> list[str]:
    """Return the images of `names`: files, folders (recursively), globs, shards, or ``-`` for a list on `stdin`.

    Files of a folder that are not read, such as hidden ones, are appended to `ignored` with the reason.

    Raises
    ------
    TransferError
        A name without images.
    """
    found: list[str] = []
    ignored = [] if ignored is None else ignored
    for name in names:
        if name == "-":
            found += find_images(_read_list(stdin or _standard_input()), ignored=ignored)
            continue
        if parse_address(name):  # an image inside a shard, as predictions.csv names it
            found.append(name)
            continue
        if shards := find_shards(name):
            found += list_members(shards)
            continue
        path = Path(name).expanduser()
        if path.is_dir():
            matches, here = _search(path)
            ignored += here
        else:
            matches = [str(path)] if path.is_file() else sorted(_match(path))
        if not matches:
            what = "; ".join(describe_left_out(here)) if path.is_dir() else ""
            what = what or "give files, folders, globs, or '-' and a list on standard input"
            raise TransferError(f"no image at {name}: {what}")
        found += matches
    if not found:
        raise TransferError("no image given: name files, folders or globs, or '-' to read a list from standard input")
    return found


def _standard_input() -> TextIO:
    if sys.stdin is None:
        raise TransferError("'-' reads a list from standard input, which is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names that are not valid text in its encoding
    return sys.stdin


def _read_list(lines: Iterable[str]) -> list[str]:
    """Return the names in `lines`, as any system writes them: with a byte-order mark, carriage returns or quotes."""
    names = [line.removeprefix("\ufeff").rstrip("\r\n") for line in lines]
    return [_unquote(name) for name in names if name.strip()]


def _unquote(name: str) -> str:
    """Return `name` without quotes around it, unless a file is called so."""
    bare = name.strip()
    quoted = len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'"
    return bare[1:-1] if quoted and not os.path.lexists(name) else name


def _search(folder: Path) -> tuple[list[str], list[LeftOut]]:
    """Return the images below `folder`, and what is not read."""
    tree = walk_images(folder)
    ignored = [
        LeftOut(f"{folder / name}{'/' * name.endswith('/')}", reason, where)
        for name, reason, where in tree.explain_ignored(folder)
    ]
    return sorted(str(folder.joinpath(*where, name)) for where, name in tree.images), ignored


def _match(pattern: Path) -> Iterator[str]:
    """Yield the files that match a glob; ``**`` does not follow links to folders."""
    root = Path(pattern.anchor)
    hidden = pattern.name.startswith(".")
    try:
        for path in root.glob(str(pattern.relative_to(root))) if pattern.name else ():
            if path.is_file() and (hidden or not path.name.startswith(".")):
                yield str(path)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{pattern} is not a valid pattern: {error}") from error
