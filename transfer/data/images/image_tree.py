"""Walk a folder tree of images: one set of rules for training, prediction and unlabelled targets."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from transfer.data.images.file_kinds import explain_unread, is_image, is_passed_over
from transfer.data.left_out import LeftOut
from transfer.errors import TransferError

_MAX_VISITS = 8  # of one folder, through links


class TreeEntry(NamedTuple):
    """An image, a folder without images or inner folders, or what is ignored: a file, or a folder that ends in a slash.

    `where` are the names of the folders above it, from the root down.
    """

    kind: Literal["image", "empty", "ignored"]
    where: tuple[str, ...]
    name: str


class _Folder(NamedTuple):
    """A folder that is not looked into yet; `above` are the real paths of the folders that it lies in."""

    where: tuple[str, ...]
    real: str
    above: frozenset[str]


@dataclass(frozen=True)
class ImageTree:
    """What a folder tree holds. A place is a tuple of folder names from the root down."""

    images: list[tuple[tuple[str, ...], str]] = field(default_factory=list)  # place and file name of each
    empty: list[str] = field(default_factory=list)  # folders without an image or an inner folder
    ignored: list[str] = field(default_factory=list)  # files that are not read, and folders, which end in a slash

    def explain_ignored(self, root: Path) -> list[LeftOut]:
        """Return what is ignored, with the reason; `root` is the folder of the tree."""
        return [LeftOut(name, explain_unread(root / name)) for name in self.ignored]


def walk_images(root: Path, max_depth: int | None = None) -> ImageTree:
    """Return all of :func:`iterate_tree`."""
    tree = ImageTree()
    for kind, where, name in iterate_tree(root, max_depth):
        if kind == "image":
            tree.images.append((where, name))
        else:
            (tree.empty if kind == "empty" else tree.ignored).append("/".join((*where, name)))
    tree.empty.sort()
    return tree


def iterate_tree(root: Path, max_depth: int | None = None) -> Iterator[TreeEntry]:
    """Yield the images below `root`, and what else is there, in the order of their paths.

    Links to folders are followed, except to one that the link itself lies in. Hidden files and folders, and those that
    an operating system adds, are ignored; other files by their names. A folder more than `max_depth` levels down is
    not looked into, and counts as empty. The names of one folder at a time are in memory, and of those above it.

    Raises
    ------
    TransferError
        A folder cannot be read, or links lead to one folder many times.
    """
    top = os.path.realpath(root)
    entered: Counter[str] = Counter()
    pending: list[TreeEntry | _Folder] = [_Folder((), top, frozenset(map(str, Path(top).parents)))]  # the next one last
    while pending:
        item = pending.pop()
        if isinstance(item, TreeEntry):
            yield item
            continue
        where, real, above = item
        if real in above:
            continue  # a link to a parent folder
        if max_depth is not None and len(where) > max_depth:
            yield TreeEntry("empty", where[:-1], f"{where[-1]} (too deep)")
            continue
        entered[real] += 1
        if entered[real] > _MAX_VISITS:  # a few links among folders give exponentially many paths
            raise TransferError(f"{root}: links lead to {real} repeatedly: remove them, or give a list of the images")
        found = _read_folder_entries(root, item)
        if where and all(isinstance(entry, TreeEntry) and entry.kind == "ignored" for entry in found):
            yield TreeEntry("empty", where[:-1], where[-1])
        pending += reversed(found)


def _read_folder_entries(root: Path, folder: _Folder) -> list[TreeEntry | _Folder]:
    """Return what lies directly in `folder`, in the order of the paths below it."""
    where, real, above = folder
    found: list[tuple[str, TreeEntry | _Folder]] = []
    try:
        entries = list(os.scandir(real))
    except OSError as error:
        raise TransferError(f"cannot read the folder {root.joinpath(*where)}: {error.strerror or error}") from error
    for entry in entries:
        name = entry.name
        if not _is_folder(entry):
            found.append((name, TreeEntry("image" if is_image(name) else "ignored", where, name)))
        elif is_passed_over(name):
            found.append((f"{name}/", TreeEntry("ignored", where, f"{name}/")))
        else:
            inner = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            found.append((f"{name}/", _Folder((*where, name), inner, above | {real})))
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a folder without permission
        return False
