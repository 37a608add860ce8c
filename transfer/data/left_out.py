"""What is not used of a data set: files, rows of a manifest, members of a shard. Imports no numpy."""

from typing import NamedTuple


class LeftOut(NamedTuple):
    """A file, row or member that is not used: its path, the reason, and the table's line or the shard that names it."""

    path: str
    reason: str
    where: str = ""
