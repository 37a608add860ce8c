"""Index of a tar shard: made in one pass over it, cached until the shard changes."""

import contextlib
import functools
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

from transfer.data.images.file_kinds import is_image, is_passed_over
from transfer.data.label_sets.cells import NO_LABEL, SEPARATORS_OF_LABELS
from transfer.data.manifests.csv_columns import MANIFEST_COLUMNS
from transfer.data.shards.address import HEADER, MAX_IMAGE_BYTES, is_url
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder, write_json

LABELS = ("cls", "json", "txt")  # files of a sample beside its image
_RULES = 4  # version of the cached index
_LARGEST = 1 << 20  # bytes of a label or a long-name header
_BLOCK = 4 << 20  # bytes read at a time

Image = tuple[str, int, int, str]  # name, offset, size in bytes, SHA-256 in hex
Fetch = Callable[[int, int], bytes]  # (offset, size) -> bytes


@dataclass(frozen=True)
class Index:
    """The images of one shard, and the cells of each image's sample."""

    shard: str  # absolute path or URL
    images: list[Image]  # in the order of the shard
    cells: dict[str, dict[str, str]]  # labels by sample key: ``cls``, ``txt``, scalars and lists of ``json``
    ignored: list[str]  # files that are neither images nor labels


def get_sample_key(name: str) -> str:
    """Return the sample key of the member `name`: everything before the first dot of the file name.

    Examples
    --------
    >>> get_sample_key("wren/0042.seg.png"), get_sample_key("v1.0/0042.jpg")
    ('wren/0042', 'v1.0/0042')
    """
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def read_index(shard: str) -> Index:
    """Return the index of `shard`, from the cache if the shard is unchanged, else from one pass over its bytes.

    Raises
    ------
    TransferError
        The shard cannot be read, is not a plain tar, is damaged or truncated, or holds unsafe members.
    """
    try:
        size, validator = find_version(shard)
    except OSError as error:
        raise TransferError(f"cannot read {shard}: {error.strerror or error}") from error
    file = get_cache_folder(
        "shards", hashlib.sha256(f"{_RULES} {shard} {size} {validator}".encode()).hexdigest()[:32] + ".json"
    )
    if validator:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            cached = Index(**json.loads(file.read_text(encoding="utf-8")))
            return replace(cached, images=[(str(n), int(o), int(s), str(d)) for n, o, s, d in cached.images])
    try:
        found = _scan(shard, size)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise TransferError(f"{shard} is damaged or not a plain tar: {error}") from error
    except OSError as error:
        raise TransferError(f"cannot read {shard}: {error.strerror or error}") from error
    if validator:
        with contextlib.suppress(TransferError):  # a cache that cannot be written only costs time
            write_json(file, asdict(found))
    return found


def find_version(shard: str) -> tuple[int, str]:
    """Return the size in bytes, and a validator that changes with the content ("" if unknown)."""
    if is_url(shard):
        from transfer.data.shards.remote import get_version

        return get_version(shard)
    stat = os.stat(shard)
    return stat.st_size, str(stat.st_mtime_ns)


def _scan(shard: str, size: int) -> Index:
    with contextlib.ExitStack() as stack:
        if is_url(shard):
            from transfer.data.shards.remote import fetch_range

            fetch = functools.partial(fetch_range, shard)
        else:
            fetch = functools.partial(_fetch, stack.enter_context(open(shard, "rb")))
        stream = _Stream(shard, fetch, size)
        _refuse_compressed(shard, stream.read(8))
        stream.seek(0)
        return _members(shard, stream, size)


def _members(shard: str, stream: "_Stream", size: int) -> Index:
    images: list[Image] = []
    cells: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    ignored: list[str] = []
    tar: Any = tarfile.TarFile(fileobj=cast(Any, stream), encoding="utf-8", errors="strict")
    while member := tar.next():
        tar.members.clear()  # else it holds every member
        name = member.name
        _refuse_unsafe(shard, member, size)
        if name in seen:
            raise TransferError(f"{shard} holds {name!r} twice: refused")
        seen.add(name)
        kind = name[len(get_sample_key(name)) + 1 :].lower()
        if member.isdir():
            continue
        if is_image(Path(name)) and not any(map(is_passed_over, PurePosixPath(name).parent.parts)):
            images.append((name, member.offset_data, member.size, stream.digest(member.offset_data, member.size)))
        elif kind in LABELS:
            stream.seek(member.offset_data)
            cells.setdefault(get_sample_key(name), {}).update(_label(shard, name, kind, stream.read(member.size)))
        else:
            ignored.append(name)
    stream.seek(tar.offset)
    if stream.read(HEADER).strip(b"\0") or tar.offset >= size:
        raise TransferError(f"{shard} is damaged or cut short: no header and no end mark at byte {tar.offset:,}")
    return Index(shard, images, cells, ignored)


def _refuse_compressed(shard: str, magic: bytes) -> None:
    if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise TransferError(f"{shard} is compressed, so that single images cannot be read: give a plain tar")


def _refuse_unsafe(shard: str, member: tarfile.TarInfo, size: int) -> None:
    name, posix, windows = member.name, PurePosixPath(member.name), PureWindowsPath(member.name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise TransferError(f"{shard} holds a path outside its folder ({name!r}): refused")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise TransferError(f"{shard} holds a link, a device or a sparse file ({name!r}): refused")
    if not 0 <= member.size <= MAX_IMAGE_BYTES:
        raise TransferError(f"{shard}: {name!r} claims {member.size:,} bytes: refused")
    if member.offset_data + member.size > size:
        raise TransferError(f"{shard} is cut short: it ends within {name!r}")


def _label(shard: str, name: str, kind: str, content: bytes) -> dict[str, str]:
    """Return the cells of a label file."""
    try:
        text = content.decode("utf-8-sig").strip()
        if kind != "json":
            return {kind: text}
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("an object { } was expected")
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{shard}: cannot read {name!r}: {error or 'nested too deeply'}") from error
    own = {name: name.lower() if name.lower() in MANIFEST_COLUMNS else name for name in found}
    return {own[k]: _cell(v) for k, v in found.items() if _is_label(v)}


def _is_label(value: Any) -> bool:
    """Return whether `value` is a scalar, or a list of texts."""
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return value is None or isinstance(value, str | int | float)


def _cell(value: Any) -> str:
    """Return a JSON scalar as a CSV cell, and a list as one of several labels."""
    if value is None:
        return ""
    if isinstance(value, list):
        return SEPARATORS_OF_LABELS[0].join(map(_cell, value)) or NO_LABEL[0]
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _fetch(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


class _Stream:
    """A file object for tarfile that holds one block in memory."""

    def __init__(self, shard: str, fetch: Fetch, size: int) -> None:
        self.shard, self.fetch, self.size = shard, fetch, size
        self.place = self.start = 0
        self.held = b""

    def tell(self) -> int:
        return self.place

    def seek(self, place: int) -> int:
        self.place = place
        return place

    def read(self, size: int) -> bytes:
        """Return the next bytes of a header or a label."""
        if not 0 <= size <= _LARGEST:
            raise TransferError(
                f"{self.shard}: a header or label at byte {self.place:,} claims {size:,} bytes: refused"
            )
        return b"".join(self._pieces(size))

    def digest(self, place: int, size: int) -> str:
        """Return the sha256 of `size` bytes from `place` on, in hex."""
        self.seek(place)
        found = hashlib.sha256()
        for piece in self._pieces(size):
            found.update(piece)
        return found.hexdigest()

    def _pieces(self, size: int) -> Iterator[memoryview]:
        end = min(self.place + size, self.size)
        while self.place < end:
            if not self.start <= self.place < self.start + len(self.held):
                self.held = b""  # free it before the next block
                self.start, self.held = self.place, self.fetch(self.place, min(_BLOCK, self.size - self.place))
                if not self.held:
                    raise TransferError(f"{self.shard} was changed while it was read: start again")
            piece = memoryview(self.held)[self.place - self.start : end - self.start]
            self.place += len(piece)
            yield piece
