"""Read WebDataset tar shards, local or remote, into a table without unpacking them."""

import glob
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from transfer.data.images.file_kinds import describe_left_out, explain_unread, is_image, is_passed_over
from transfer.data.layout import arrange_images
from transfer.data.left_out import LeftOut
from transfer.data.manifests.csv_columns import MANIFEST_COLUMNS
from transfer.data.manifests.manifest import is_manifest, make_table
from transfer.data.shards.address import Member, is_url
from transfer.data.shards.index import Image, Index, get_sample_key, read_index
from transfer.data.table import ImageTable, natural_key
from transfer.errors import TransferError

MAX_SHARDS = 100_000  # of a set
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_READERS = 8  # shards indexed at once; remote ones mostly wait
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_shards(data: str) -> list[str] | None:
    """Return the shards of `data`, in order; None if it does not name shards.

    Parameters
    ----------
    data : str
        A tar, a URL of one, either with ranges such as ``{000..009}``; a glob of tars; a folder with tars alone.

    Raises
    ------
    TransferError
        Shards that are missing or not supported: compressed ones, commands, unknown protocols.
    """
    if data.startswith("pipe:"):
        raise TransferError("pipe: would run a command, which --data never does: give paths or URLs of shards")
    if not is_url(data) and re.match(r"[a-z][a-z0-9+.]+://", data):
        known = ", ".join(f"{protocol}://" for protocol in ("http", "https", "s3", "gs", "az"))
        raise TransferError(f"cannot read {data}: shards are read from paths and from {known}")
    ending = data.partition("?")[0] if is_url(data) else data
    if ending.endswith(_COMPRESSED):
        raise TransferError(f"{data} is compressed, so that single images cannot be read: give plain tars")
    if is_url(data):
        if not ending.endswith(".tar"):
            raise TransferError(
                f"{data} is no tar shard: a remote --data is a URL of tars such as https://…/name-{{000..009}}.tar"
            )
        return expand_ranges(data)
    path = Path(data).expanduser().absolute()
    if path.is_dir():
        return _in_folder(path)
    if not data.endswith(".tar"):
        return None
    if path.is_file():
        return [str(path)]
    found = []
    for name in expand_ranges(str(path)):
        matches = [name] if Path(name).is_file() else sorted(glob.glob(name), key=natural_key)
        if not matches:
            raise TransferError(f"no shard {name}")
        found += matches
    return found


def expand_ranges(pattern: str) -> list[str]:
    """Return the names of `pattern` with its ranges expanded, the last range fastest.

    Raises
    ------
    TransferError
        A range that runs backwards, or more than `MAX_SHARDS` names.

    Examples
    --------
    >>> expand_ranges("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    names = list(islice(_expanded(pattern), MAX_SHARDS + 1))
    if len(names) > MAX_SHARDS:
        raise TransferError(f"{pattern} expands to more than {MAX_SHARDS:,} shards")
    return names


def _expanded(pattern: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise TransferError(f"{pattern}: the range {found[0]} runs backwards")
    for i in range(first, last + 1):
        yield from _expanded(f"{pattern[: found.start()]}{i:0{len(found[1])}d}{pattern[found.end() :]}")


def _in_folder(folder: Path) -> list[str] | None:
    """Return the tars of a folder that holds no folders, images or manifest beside them."""
    entries = [entry for entry in folder.iterdir() if not is_passed_over(entry.name)]
    tars = [str(entry) for entry in entries if entry.suffix == ".tar"]
    others = any(entry.is_dir() or is_image(entry) or is_manifest(entry) for entry in entries)
    return sorted(tars, key=natural_key) if tars and not others else None


def list_members(shards: Sequence[str]) -> list[str]:
    """Return the addresses of all images in `shards`."""
    return list(iterate_members(shards, []))


def iterate_members(shards: Sequence[str], ignored: Any) -> Iterator[str]:
    """Yield the addresses of all images in `shards`, which are indexed a few ahead.

    What is not read is appended to `ignored`, a list or LeftOutCounts, as :class:`LeftOut`.
    """
    with ThreadPoolExecutor(min(_READERS, len(shards))) as pool:
        try:
            waiting: deque[Future[Index]] = deque()
            for shard in chain(shards, [None] * _READERS):
                if shard is not None:
                    waiting.append(pool.submit(read_index, shard))
                if waiting and (shard is None or len(waiting) == _READERS):
                    index = waiting.popleft().result()
                    for file in _list_left_out(index):
                        ignored.append(file)
                    yield from _list_addresses([index])
        finally:  # also if the consumer stops early
            pool.shutdown(cancel_futures=True)


def read_shards(shards: Sequence[str], targets: Sequence[str] = (), *, name: str = "") -> ImageTable:
    """Read tar shards into a table whose paths are addresses (`transfer.data.shards.address`), in the shards' order.

    Files of one sample share their name up to the first dot: ``KEY.jpg`` beside ``KEY.json``, an object with any of
    ``object``, ``domain``, ``split``, ``group`` and further targets, or ``KEY.cls``, the object's name or number.
    Without such files, folders inside the tar name the classes, as those on disk do.

    Parameters
    ----------
    shards : sequence of str
        Paths and URLs.
    targets : sequence of str
        Further keys of the ``json`` to predict, as for `transfer.data.manifests.manifest.read_manifest`; ``txt`` is one
        as well.
    name : str
        Name of the table.

    Raises
    ------
    TransferError
        An unreadable or unsafe shard, no image, or unreadable labels.
    """
    indices = _indexed(shards)
    source = name or shards[0]
    if not any(index.images for index in indices):
        raise TransferError(f"no image in {source}: expected KEY.jpg beside KEY.json or KEY.cls, or class/….jpg")
    left_out = tuple(each for index in indices for each in _list_left_out(index))
    notes = tuple(f"left out: {line}" for line in describe_left_out(left_out))
    wanted = {"cls", "object", *targets, *(spec.rpartition(":")[0] for spec in targets)}
    if any(wanted & cells.keys() for index in indices for cells in index.cells.values()):
        return _labelled(indices, targets, source, notes, left_out)
    if targets:
        raise TransferError(
            f"further targets ({', '.join(targets)}) need a KEY.json beside each image; {source} has none"
        )
    images = [image for index in indices for image in index.images]
    found = [(parts[:-1], parts[-1]) for parts in (PurePosixPath(name).parts for name, *_ in images)]
    digests = np.array([digest for *_, digest in images])
    table = arrange_images(found, _list_addresses(indices), source=source, name=source, sha256=digests)
    return replace(table, notes=(*table.notes, *notes), left_out=(*table.left_out, *left_out))


def _list_left_out(index: Index) -> Iterator[LeftOut]:
    """Yield the files of a shard that are neither images nor labels, and the samples that have no image."""
    for name in index.ignored:
        passed_over = next(filter(is_passed_over, PurePosixPath(name).parent.parts), name)
        yield LeftOut(name, explain_unread(Path(passed_over), opened=False), index.shard)
    with_image = {get_sample_key(name) for name, *_ in index.images}
    yield from (LeftOut(key, "a label without an image", index.shard) for key in index.cells if key not in with_image)


def _indexed(shards: Sequence[str]) -> list[Index]:
    with ThreadPoolExecutor(min(_READERS, len(shards))) as pool:
        try:
            reading = pool.map(read_index, shards)
            return list(tqdm(reading, "indexing shards", total=len(shards), unit="shard", disable=None, leave=False))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _list_addresses(indices: Sequence[Index]) -> list[str]:
    return [str(Member(index.shard, *image[:3])) for index in indices for image in index.images]


def _labelled(
    indices: Sequence[Index],
    targets: Sequence[str],
    source: str,
    notes: tuple[str, ...],
    left_out: tuple[LeftOut, ...],
) -> ImageTable:
    """Return the table of shards whose samples carry labels."""
    members, digests, cells = [], [], []
    others: list[LeftOut] = []
    for index in indices:
        chosen = _one_each(index)
        others += [
            LeftOut(name, "another image of its sample, such as a mask", index.shard)
            for name, *_ in index.images
            if name != chosen[get_sample_key(name)][0]
        ]
        for sample, (image, place, size, digest) in chosen.items():
            members.append(Member(index.shard, image, place, size))
            digests.append(digest)
            cells.append(index.cells.get(sample, {}))
    names = dict.fromkeys(chain.from_iterable(cells))
    wanted = {*MANIFEST_COLUMNS, *targets, *(spec.rpartition(":")[0] for spec in targets)}  # a name or NAME:KIND
    columns = {n: [cell.get(n, "") for cell in cells] if n in wanted else [] for n in names if n != "cls"}
    objects = [cell.get("object") or cell.get("cls", "") for cell in cells]
    columns = columns | {"object": objects} if any(objects) or not targets else columns
    columns["path"] = [str(member) for member in members]
    table = make_table(
        columns, targets, name=source, source=source, place=lambda row: f"{members[row].shard}::{members[row].name}"
    )
    if others:
        notes += (f"{len(others)} further image{'s' * (len(others) > 1)} of samples ignored, such as masks",)
    return replace(table, notes=(*table.notes, *notes), sha256=np.array(digests), left_out=(*left_out, *others))


def _one_each(index: Index) -> dict[str, Image]:
    """Return the image of each sample; of several, the one with a single suffix."""
    chosen: dict[str, Image] = {}
    for image in index.images:
        sample = get_sample_key(image[0])
        plain = "." not in image[0][len(sample) + 1 :]
        if sample in chosen:
            before = "." not in chosen[sample][0][len(sample) + 1 :]
            if plain == before:
                raise TransferError(
                    f"{index.shard}: the sample {sample!r} has two images ({chosen[sample][0]!r}, {image[0]!r}): "
                    f"name the image to train on {sample}.jpg, and others {sample}.NAME.jpg"
                )
            if before:
                continue
        chosen[sample] = image
    return chosen
