"""What is not used of a data set: files, rows of a manifest, members of a shard. Imports no numpy."""

from collections.abc import Iterable
from typing import NamedTuple

from transfer.errors import list_examples

SHOWN_FILES = 3  # per reason, in a message


class LeftOut(NamedTuple):
    """A file, row or member that is not used: its path, the reason, and the table's line or the shard that names it."""

    path: str
    reason: str
    where: str = ""


class LeftOutCounts:
    """Numbers of files and folders that are not used, by reason, with a few names each: of any number in little memory.

    Examples
    --------
    >>> counts = LeftOutCounts([LeftOut("a/.1.png", "hidden")])
    >>> counts.append(LeftOut("b.txt", "not an image", "shard.tar"))
    >>> counts.describe()
    ['1 file, hidden: a/.1.png', '1 file, not an image: b.txt (shard.tar)']
    """

    def __init__(self, files: Iterable[LeftOut] = ()) -> None:
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {}
        for file in files:
            self.append(file)

    def append(self, file: LeftOut) -> None:
        """Count `file`, whose path ends in a slash if it is a folder."""
        path, reason, where = file
        key = "folder" if path.endswith("/") else "file", reason
        count, names = self._found.get(key, (0, []))
        if count <= SHOWN_FILES:
            names.append(f"{path} ({where})" if path and where else path or where)
        self._found[key] = count + 1, names

    def describe(self) -> list[str]:
        """Return for each reason the number of files, or of folders, and some names."""
        return [
            f"{count:,} {kind}{'s' * (count > 1)}, {reason}: {list_examples(names, SHOWN_FILES)}"
            for (kind, reason), (count, names) in self._found.items()
        ]
