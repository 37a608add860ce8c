"""Addresses of images inside tar shards, and reading one by its address.

An address is a string, ``SHARD::MEMBER@OFFSET+SIZE``, and is used wherever a file path is. It suffices to read the
member without an index. The tar header, 512 bytes before the member, shows whether the member is still there.
"""

import re
import tarfile
from typing import NamedTuple

from transfer.errors import TransferError

HEADER = tarfile.BLOCKSIZE
MAX_IMAGE_BYTES = 1 << 30  # bytes of one image; larger ones are refused unread
REMOTE_PROTOCOLS = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")  # of fsspec

_ADDRESS = re.compile(r"(?P<shard>.+?\.tar(?:\?[^\s]*?)?)::(?P<name>.+)@(?P<offset>\d+)\+(?P<size>\d+)", re.DOTALL)


class Member(NamedTuple):
    """A file inside a tar: path or URL of the shard, name, offset and size in bytes."""

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
        """Return the first byte of the header and the byte after the member."""
        return self.offset - HEADER, self.offset + self.size


def is_url(name: str) -> bool:
    """Return whether `name` is the address of a remote file, such as https://... or s3://..."""
    return name.partition("://")[0] in REMOTE_PROTOCOLS


def parse_address(address: str) -> Member | None:
    """Return the member of `address`; None for a file path.

    Examples
    --------
    >>> parse_address("sets/birds-003.tar::wren/0042.jpg@1536+20211")
    Member(shard='sets/birds-003.tar', name='wren/0042.jpg', offset=1536, size=20211)
    >>> parse_address("sets/birds/wren/0042.jpg") is None
    True
    """
    found = _ADDRESS.fullmatch(address) if "::" in address else None
    return Member(found["shard"], found["name"], int(found["offset"]), int(found["size"])) if found else None


def read_member(member: Member) -> bytes:
    """Read one member.

    Raises
    ------
    TransferError
        The shard cannot be read or was changed; names shard and member.
    """
    start, end = member.span
    return check_member(member, fetch_bytes(member, start, end - start))


def fetch_bytes(member: Member, start: int, size: int) -> bytes:
    """Return `size` bytes of the shard of `member`."""
    try:
        if member.size > MAX_IMAGE_BYTES or start < 0:
            raise OSError("invalid offset or size of an image")
        if member.remote:
            from transfer.data.shards.remote import fetch_range  # local shards need no network client

            return fetch_range(member.shard, start, size)
        with open(member.shard, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise TransferError(f"cannot read {member.name!r} of {member.shard}: {error.strerror or error}") from error


def check_member(member: Member, found: bytes) -> bytes:
    """Return the bytes of the member from `found` (with its header), after checking the header."""
    try:
        header = tarfile.TarInfo.frombuf(found[:HEADER], "utf-8", "surrogateescape")
        sized = len(found) == HEADER + member.size and (header.size == member.size or "size" in header.pax_headers)
        same = header.isreg() and sized and _named(header.name, member.name)
    except tarfile.TarError:
        same = False
    if not same:
        raise TransferError(f"{member.name!r} is no longer at its place in {member.shard}: the shard was changed")
    return found[HEADER:]


def _named(short: str, name: str) -> bool:
    """Return whether a header with the name `short` can be that of `name`; headers truncate long names."""
    return short == name or len(name.encode("utf-8", "surrogateescape")) > 100 or not name.isascii()
