"""Find the images that a user names: files, folders, globs, shards, or a list on standard input."""

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from transfer.data.images.file_kinds import explain_unread
from transfer.data.images.image_tree import iterate_tree
from transfer.data.left_out import LeftOut, LeftOutCounts
from transfer.data.shards.address import parse_address
from transfer.data.shards.index import find_version
from transfer.data.shards.reader import find_shards, iterate_members
from transfer.errors import TransferError
from transfer.runtime.streams import read_chunks

ImagePath = str
"""The path of a file, or the address of an image in a shard (`transfer.data.shards.address`)."""


def find_images(
    names: Sequence[str], stdin: TextIO | None = None, *, ignored: list[LeftOut] | None = None
) -> list[ImagePath]:
    """Return the images of `names`, as :func:`iterate_images` yields them."""
    return [path for path in iterate_images(names, stdin, ignored=[] if ignored is None else ignored) if path]


def iterate_images(
    names: Sequence[str], stdin: TextIO | None = None, *, ignored: Any = None, keep_missing: bool = False
) -> Iterator[ImagePath | None]:
    """Yield the images of `names`: files, folders (recursively), globs, shards, or ``-`` for a list on `stdin`.

    Paths are found as they are needed: a list of any length takes little memory. While the next line of a list is not
    written yet, None is yielded. The names of a list are on lines of their own, or end with NUL, as ``find -print0``
    writes them.

    Parameters
    ----------
    names : sequence of str
    stdin : text file, optional
        The list (default: standard input).
    ignored : list or LeftOutCounts, optional
        Files of folders and shards that are not read, such as hidden ones, are appended as :class:`LeftOut`.
    keep_missing : bool
        Yield names in a list that have no image as they are, instead of raising.

    Raises
    ------
    TransferError
        A name without images; of `names` themselves, before the first image is yielded.
    """
    ignored = LeftOutCounts() if ignored is None else ignored
    sources = [
        _iterate_list(stdin, ignored, keep_missing) if name == "-" else _open_source(name, ignored) for name in names
    ]
    count = 0
    for path in chain.from_iterable(sources):
        count += path is not None
        yield path
    if not count:
        raise TransferError("no image given: name files, folders or globs, or '-' to read a list from standard input")


def _open_source(name: str, ignored: Any) -> Iterator[ImagePath]:
    """Return the images of `name`; raise a TransferError if there is none."""
    if _is_plain_file(name):
        return iter([str(Path(name))])
    if parse_address(name):  # an image inside a shard, as predictions.csv names it
        return iter([name])
    here = LeftOutCounts()
    path = Path(name).expanduser()
    if shards := find_shards(name):
        found = iterate_members(shards, _Both(here, ignored))
    elif path.is_dir():
        found = _search(path, _Both(here, ignored))
    else:
        found = iter([str(path)] if path.is_file() else sorted(_match(path)))
    first = next(found, None)
    if first is None:
        what = "; ".join(here.describe()) or "give files, folders, globs, or '-' and a list on standard input"
        raise TransferError(f"no image at {name}: {what}")
    return chain([first], found)


class _Both:
    """Appends to two lists."""

    def __init__(self, *lists: Any) -> None:
        self.lists = lists

    def append(self, file: LeftOut) -> None:
        for each in self.lists:
            each.append(file)


def _is_plain_file(name: str) -> bool:
    """Return whether `name` is a file that is no shard, by one look at the disk, as lists may be long."""
    return ".tar" not in name and ".tgz" not in name and os.path.isfile(name)


def _iterate_list(stdin: TextIO | None, ignored: Any, keep_missing: bool) -> Iterator[ImagePath | None]:
    """Yield the images of each name in a list; None where the next one is not written yet."""
    if stdin is None and sys.stdin is None:
        raise TransferError("'-' reads a list from standard input, which is closed")
    for name in _split_names(read_chunks(stdin or sys.stdin)):
        if name is None:
            yield None
            continue
        try:
            yield from _open_source(name, ignored)
        except TransferError:
            if not keep_missing:
                raise
            yield name


def identify_image(path: ImagePath) -> tuple[bytes, bytes]:
    """Return 8 bytes that identify `path`, and 8 that change when its file or shard does: its size or time of change.

    The content is not read.
    """
    member = parse_address(path)
    try:
        if member and member.remote:
            version = _find_remote_version(member.shard)
        else:
            status = os.stat(member.shard if member else path)
            version = f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):  # no such file
        version = ""
    return _hash_text(path), _hash_text(version)


@functools.lru_cache(maxsize=64)
def _find_remote_version(shard: str) -> str:
    return " ".join(map(str, find_version(shard)))


def _hash_text(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _split_names(chunks: Iterable[bytes | None]) -> Iterator[str | None]:
    """Yield the names in `chunks`, as any system writes them: with a byte-order mark, carriage returns or quotes.

    Names end with a line break; if the first of `chunks` contains a NUL, with NUL. None is yielded for None.
    """
    end, rest = b"", b""
    for chunk in chain(chunks, [b""]):
        if chunk is None:
            yield None
            continue
        end = end or (b"\0" if b"\0" in chunk else b"\n")
        *lines, rest = (rest + (chunk or end)).split(end)
        for line in lines:
            name = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf"))
            name = name if end == b"\0" else _unquote(name.rstrip("\r"))
            if name.strip():
                yield name


def _unquote(name: str) -> str:
    """Return `name` without quotes around it, unless a file is called so."""
    bare = name.strip()
    quoted = len(bare) > 2 and bare[0] == bare[-1] and bare[0] in "\"'"
    return bare[1:-1] if quoted and not os.path.lexists(name) else name


def _search(folder: Path, ignored: Any) -> Iterator[ImagePath]:
    """Yield the images below `folder` in the order of their paths, and append what is not read to `ignored`."""
    for kind, where, name in iterate_tree(folder):
        path = folder.joinpath(*where, name)
        if kind == "image":
            yield str(path)
        elif kind == "ignored":
            ignored.append(LeftOut(f"{path}{'/' * name.endswith('/')}", explain_unread(path)))


def _match(pattern: Path) -> Iterator[ImagePath]:
    """Yield the files that match a glob; ``**`` does not follow links to folders."""
    root = Path(pattern.anchor)
    hidden = pattern.name.startswith(".")
    try:
        for path in root.glob(str(pattern.relative_to(root))) if pattern.name else ():
            if path.is_file() and (hidden or not path.name.startswith(".")):
                yield str(path)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{pattern} is not a valid pattern: {error}") from error
