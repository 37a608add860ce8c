"""Images inside tar shards: the address of one, and its bytes.

An address is a string, ``SHARD::MEMBER@OFFSET+SIZE``, and stands wherever the path of a file does. It says all that
is needed to read the member: no index, and no byte of another. The member's header, 512 bytes before it, tells whether
it is still there.
"""

import re
import tarfile
from typing import NamedTuple

from transfer.errors import TransferError

HEADER = tarfile.BLOCKSIZE
LARGEST = 1 << 30  # bytes of one image; larger ones are refused unread
REMOTE_PROTOCOLS = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")  # of fsspec

_ADDRESS = re.compile(r"(?P<shard>.+?\.tar(?:\?[^\s]*?)?)::(?P<name>.+)@(?P<offset>\d+)\+(?P<size>\d+)", re.DOTALL)


class Member(NamedTuple):
    """A file inside a tar: the shard's path or URL, its name there, and where its bytes lie."""

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.name}@{self.offset}+{self.size}"

    @property
    def remote(self) -> bool:
        """Return whether the shard lies on a web server or in an object store."""
        return is_url(self.shard)

    @property
    def span(self) -> tuple[int, int]:
        """Return the first byte of the member's header and the one after its last."""
        return self.offset - HEADER, self.offset + self.size


def is_url(name: str) -> bool:
    """Return whether `name` is the address of a remote file, such as https://... or s3://..."""
    return name.partition("://")[0] in REMOTE_PROTOCOLS


def parse(address: str) -> Member | None:
    """Return the member that `address` stands for; None for the path of a file.

    Examples
    --------
    >>> parse("sets/birds-003.tar::wren/0042.jpg@1536+20211")
    Member(shard='sets/birds-003.tar', name='wren/0042.jpg', offset=1536, size=20211)
    >>> parse("sets/birds/wren/0042.jpg") is None
    True
    """
    found = _ADDRESS.fullmatch(address) if "::" in address else None
    return Member(found["shard"], found["name"], int(found["offset"]), int(found["size"])) if found else None


def content(member: Member) -> bytes:
    """Read one member.

    Raises
    ------
    TransferError
        The shard cannot be read, or the member is no longer there; names both.
    """
    start, end = member.span
    return checked(member, fetch(member, start, end - start))


def fetch(member: Member, start: int, size: int) -> bytes:
    """Read `size` bytes of the member's shard; what goes wrong names both."""
    try:
        if member.size > LARGEST or start < 0:
            raise OSError("no image has such a place and size")
        if member.remote:
            from transfer.data.shards.remote import fetch_range  # local shards need no network client

            return fetch_range(member.shard, start, size)
        with open(member.shard, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise TransferError(f"cannot read {member.name!r} of {member.shard}: {error.strerror or error}") from error


def checked(member: Member, found: bytes) -> bytes:
    """Return the member's bytes out of `found`, header and all, if the header is its own."""
    try:
        header = tarfile.TarInfo.frombuf(found[:HEADER], "utf-8", "surrogateescape")
        same = header.isreg() and len(found) == HEADER + member.size
        same = (
            same and (header.size == member.size or "size" in header.pax_headers) and _named(header.name, member.name)
        )
    except tarfile.TarError:
        same = False
    if not same:
        raise TransferError(f"{member.name!r} is no longer where it was in {member.shard}: the shard was changed")
    return found[HEADER:]


def _named(short: str, name: str) -> bool:
    """Return whether a header that says `short` can be the one of `name`, of which long ones hold a part."""
    return short == name or len(name.encode("utf-8", "surrogateescape")) > 100 or not name.isascii()
