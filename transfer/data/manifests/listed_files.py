"""Find the image files that the cells of a table name, also where the table was written elsewhere."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from transfer.data.images.file_kinds import image_suffixes, is_image, is_passed_over
from transfer.errors import TransferError, list_examples

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # a Windows path with a drive letter, or of a network share
_MAX_FOLDERS = 1000  # that are looked through for the one that relative paths start in
_MAX_DEPTH = 2  # of that folder


class ListedFiles:
    """Finds files by the paths of one table; remembers how its first path was found.

    Parameters
    ----------
    folders : sequence of Path
        Absolute folders in which relative paths may start, the first with a match.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = list(folders)
        self._suffixes: Counter[str] = Counter()  # that were added
        self._old_root: tuple[str, ...] = ()  # first parts of absolute paths, for which another folder stands
        self._new_root = self._folders[0]
        self._below: Path | None = None  # where relative paths start, if in no given folder
        self._found_directly = False
        self._stems: dict[str, dict[str, list[str]]] = {}  # names of images by stem, by folder

    def find(self, path: str) -> str:
        """Return the file that `path` names.

        Backslashes may separate its parts, ``~`` is the home folder, and the suffix of an image may be missing. An
        absolute path of another machine is found if its last parts lie in one of the folders, and relative paths
        may all start in one folder below it.

        Raises
        ------
        TransferError
            There is no such file, or several could be meant.
        """
        for folder in self._folders:
            if found := self._look(folder, path):
                self._found_directly = True
                return found
        parts = _split_absolute(path)
        if found := self._find_moved(parts) if parts else self._find_below(path):
            return found
        if os.name != "nt" and _DRIVE.match(path):
            raise TransferError(f"{path} is a path of another system (Windows): write paths relative to the CSV file")
        raise TransferError(f"no file {self._folders[0] / path}")

    def describe(self) -> list[str]:
        """Return how paths were found that are not simply those of files."""
        notes = [f"{count} names without a suffix: {suffix} added" for suffix, count in self._suffixes.items()]
        if self._old_root:
            kind = PureWindowsPath if _DRIVE.match(self._old_root[0]) else PurePosixPath
            notes.append(f"paths of another machine: {kind(*self._old_root)} is read as {self._new_root}")
        if self._below:
            notes.append(f"its paths start in the folder {self._below}")
        return notes

    def _look(self, folder: Path, path: str) -> str | None:
        forms = [path]
        if "\\" in path and os.name != "nt" and not _DRIVE.match(path):
            forms.append(path.replace("\\", "/"))
        if path.startswith("~"):
            forms.append(os.path.expanduser(path))
        for form in forms:
            if os.path.isfile(found := os.path.join(folder, form)):  # Path.is_file raises if the name is too long
                return str(Path(found))
        return next(filter(None, (self._add_suffix(os.path.join(folder, form)) for form in forms)), None)

    def _add_suffix(self, path: str) -> str | None:
        parent, name = os.path.split(path)
        if os.path.splitext(name)[1].lower() in image_suffixes():
            return None
        if parent not in self._stems:
            self._stems[parent] = defaultdict(list)
            for image in filter(is_image, map(Path, _list_folder(parent))):
                self._stems[parent][image.stem].append(image.name)
        found = self._stems[parent].get(name, [])
        if len(found) > 1:
            raise TransferError(f"{path} could be {list_examples(sorted(found))}: add the suffix")
        if not found:
            return None
        self._suffixes[os.path.splitext(found[0])[1]] += 1
        return str(Path(parent, found[0]))

    def _find_moved(self, parts: tuple[str, ...]) -> str | None:
        """Look for the last parts of an absolute path; all such paths must lose the same first parts."""
        if self._old_root:
            known = len(self._old_root)
            same = parts[:known] == self._old_root
            return self._look(self._new_root, os.path.join(*parts[known:])) if same and parts[known:] else None
        for start in range(1, len(parts) if ".." not in parts else 0):
            for folder in self._folders:
                if found := self._look(folder, os.path.join(*parts[start:])):
                    self._old_root, self._new_root = parts[:start], folder
                    return found
        return None

    def _find_below(self, path: str) -> str | None:
        """Look in the folders below, if no path of the table was found without this; all must be in the same."""
        if self._below:
            return self._look(self._below, path)
        if self._found_directly:
            return None
        found = {inner: file for inner in _iter_folders(self._folders) if (file := self._look(inner, path))}
        if len(found) > 1:
            raise TransferError(f"{path} could be {list_examples(sorted(found.values()))}: name its folder, too")
        self._below = next(iter(found), None)
        return found[self._below] if self._below else None


def _split_absolute(path: str) -> tuple[str, ...]:
    """Return the parts of an absolute path of any system; none if it is relative."""
    if _DRIVE.match(path):
        return PureWindowsPath(path).parts
    pure: PurePath = PurePosixPath(path.replace("\\", "/") if path.startswith("~") else path)
    return pure.parts if path.startswith(("/", "~")) else ()


def _iter_folders(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield up to `_MAX_FOLDERS` folders below `roots`, not hidden, at most `_MAX_DEPTH` deep."""
    pending = [(root, 0) for root in roots]
    for count, (folder, depth) in enumerate(pending):
        if count > _MAX_FOLDERS:
            return
        if depth:
            yield folder
        if depth < _MAX_DEPTH:
            inner = (folder / name for name in sorted(_list_folder(folder)) if not is_passed_over(name))
            pending += [(path, depth + 1) for path in inner if path.is_dir() and not path.is_symlink()]


def _list_folder(folder: str | Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):  # missing, or a name with a NUL
        return []
