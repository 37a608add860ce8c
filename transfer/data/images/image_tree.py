"""Walk a folder tree of images: one set of rules for training, prediction and unlabelled targets."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from transfer.data.images.file_kinds import explain_unread, is_image, is_passed_over
from transfer.data.left_out import LeftOut
from transfer.errors import TransferError

_MAX_VISITS = 8  # of one folder, through links


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
    """Return the images below `root`, and what else is there.

    Links to folders are followed, except to one that the link itself lies in. Hidden files and folders, and those that
    an operating system adds, are ignored; other files by their names. A folder more than `max_depth` levels down is
    not looked into, and counts as empty.

    Raises
    ------
    TransferError
        A folder cannot be read, or links lead to one folder many times.
    """
    tree = ImageTree()
    top = os.path.realpath(root)
    entered: Counter[str] = Counter()
    pending: list[tuple[tuple[str, ...], str, frozenset[str]]] = [((), top, frozenset(map(str, Path(top).parents)))]
    while pending:
        where, real, above = pending.pop()
        if real in above:
            continue  # a link to a parent folder
        if max_depth is not None and len(where) > max_depth:
            tree.empty.append("/".join(where) + " (too deep)")
            continue
        entered[real] += 1
        if entered[real] > _MAX_VISITS:  # a few links among folders give exponentially many paths
            raise TransferError(f"{root}: links lead to {real} repeatedly: remove them, or give a list of the images")
        try:
            entries = sorted(os.scandir(real), key=lambda e: e.name)
        except OSError as error:
            raise TransferError(f"cannot read the folder {root.joinpath(*where)}: {error.strerror or error}") from error
        leaf = True
        for entry in entries:
            if _is_folder(entry):
                if is_passed_over(entry.name):
                    tree.ignored.append("/".join((*where, entry.name)) + "/")
                else:
                    leaf = False
                    inner = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    pending.append(((*where, entry.name), inner, above | {real}))
            elif is_image(Path(entry.name)):
                leaf = False
                tree.images.append((where, entry.name))
            else:
                tree.ignored.append("/".join((*where, entry.name)))
        if leaf and where:
            tree.empty.append("/".join(where))
    tree.empty.sort()
    return tree


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a folder without permission
        return False
