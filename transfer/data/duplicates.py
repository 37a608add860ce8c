"""Inspect the files of a table in one pass: bad images, duplicates and near-duplicates."""

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Literal

import imagehash
import numpy as np
import PIL
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

from transfer.data.images.decode import BadImage, decode
from transfer.data.left_out import LeftOut
from transfer.data.shards.prefetch import Contents
from transfer.data.table import ImageTable
from transfer.disk_cache import CacheWriteError, DiskCache
from transfer.errors import TransferError
from transfer.runtime.files import open_regular

# Maximum Hamming distance of the 64-bit hashes of near-duplicates. In a set of flower photographs with 23 known
# near-duplicates across its split, every limit from 2 to 6 finds exactly these; 8 joins different photographs. Among
# product pictures on white, pairs up to 4 mostly show one object, pairs at 6 mostly objects of the same shape.
NEAR_BITS = 4
_HASHED_SIDE = 64  # pixels of the decoded image; the hash uses 32 x 32
_RULES = {"pillow": PIL.__version__, "imagehash": imagehash.__version__, "side": _HASHED_SIDE, "rules": 2}
_DIGESTED = 32  # files that a thread digests in one task; of one each, half of the time would go to the tasks
_MOST_PAIRS = 1 << 22  # in memory at once: 64 MiB


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting the files of a table; each array has shape (N,)."""

    sha256: np.ndarray  # of the file's bytes, in hex; "" if it cannot be read
    phash: np.ndarray  # perceptual hash of the image, uint64; 0 if it is bad
    reason: np.ndarray  # why the image is bad, with the file name; "" if it is not

    def __len__(self) -> int:
        return len(self.sha256)

    @property
    def bad(self) -> np.ndarray:
        """Boolean mask, shape (N,), of images that do not decode."""
        return self.reason != ""

    def take(self, rows: np.ndarray) -> "Inspection":
        """Return the inspection of `rows` (indices or a boolean mask)."""
        return Inspection(self.sha256[rows], self.phash[rows], self.reason[rows])


def inspect_files(table: ImageTable, workers: int | None = None, disk_cache: DiskCache | None = None) -> Inspection:
    """Read and decode every file of `table` once, by `workers` threads (default: one per core).

    With a `disk_cache` for the hashes, an image that was inspected before is not decoded again.
    """
    n = len(table)
    sha256, phash, reason = np.full(n, "", "U64"), np.zeros(n, np.uint64), np.full(n, "", object)
    todo = np.arange(n)
    row_cache = disk_cache.open_rows("inspection", _RULES, (1,), np.uint64) if disk_cache else None
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool, contextlib.ExitStack() as stack:
        if row_cache:
            if table.sha256 is None:
                contents = stack.enter_context(contextlib.closing(Contents(table.paths)))
                batches = [range(n)[start : start + _DIGESTED] for start in range(0, n, _DIGESTED)]
                read = chain.from_iterable(pool.map(functools.partial(_digest, contents), batches))
                sha256[:] = list(tqdm(read, "reading images", total=n, unit="image", disable=None, leave=False))
            else:
                sha256[:] = table.sha256
            readable = np.flatnonzero(sha256 != "")
            located = row_cache.locate(sha256[readable])
            cached = readable[located.found]
            phash[cached] = located.take(np.flatnonzero(located.found))[:, 0]
            todo = np.setdiff1d(todo, cached)
        contents = stack.enter_context(contextlib.closing(Contents(table.paths, todo)))
        seen = pool.map(functools.partial(_inspect_file, contents), range(len(todo)))
        bar = tqdm(seen, "inspecting images", total=len(todo), unit="image", disable=None if len(todo) else True)
        for row, found in zip(todo, bar, strict=True):
            sha256[row], phash[row], reason[row] = found
    if row_cache:
        sound = todo[reason[todo] == ""]
        sound = sound[np.unique(sha256[sound], return_index=True)[1]]
        with contextlib.suppress(CacheWriteError), row_cache.open_writer(len(sound)) as writer:
            writer.append(sha256[sound], phash[sound, None])
    return Inspection(sha256, phash, reason.astype(str))


def _read(contents: Contents, place: int) -> bytes:
    content = contents[place]
    if isinstance(content, bytes):
        return content
    with open_regular(content) as file:
        return file.read()


def _digest(contents: Contents, places: Iterable[int]) -> list[str]:
    found = []
    for place in places:
        try:
            found.append(hashlib.sha256(_read(contents, place)).hexdigest())
        except OSError:
            found.append("")
    return found


def _inspect_file(contents: Contents, place: int) -> tuple[str, int, str]:
    path = contents.path(place)
    try:
        content = _read(contents, place)
    except OSError as error:
        return "", 0, f"bad image {path}: {error.strerror or error}"
    sha256 = hashlib.sha256(content).hexdigest()
    if not content:
        return sha256, 0, f"bad image {path}: the file is empty"
    try:
        image = decode(io.BytesIO(content), name=path, at_least=_HASHED_SIDE, levels=None)
    except BadImage as error:
        return sha256, 0, str(error)
    return sha256, int(str(imagehash.phash(image)), 16), ""


def drop_bad_images(
    table: ImageTable, inspection: Inspection, on_bad: Literal["refuse", "skip"]
) -> tuple[ImageTable, Inspection]:
    """Refuse a table with bad images, or drop them and add a note; raise if all images are bad."""
    bad = inspection.bad
    count = int(bad.sum())
    if not count:
        return table, inspection
    examples = "; ".join(inspection.reason[bad][:3].tolist()) + ("; …" if count > 3 else "")
    if on_bad == "refuse":
        raise TransferError(
            f"{count} of {len(table)} images cannot be used: {examples} "
            "(repair them, or skip them with --on-bad-image skip)"
        )
    if count == len(table):
        raise TransferError(f"none of the {count} images can be used: {examples}")
    good = table.take(~bad)
    note = f"{count} bad image{'s' * (count > 1)} skipped: {examples}"
    reasons = [
        LeftOut(path, reason.removeprefix(f"bad image {path}: "))
        for path, reason in zip(table.paths[bad].tolist(), inspection.reason[bad].tolist(), strict=True)
    ]
    good = replace(good, notes=(*good.notes, note), left_out=(*good.left_out, *reasons))
    return good, inspection.take(~bad)


def group_duplicates(inspection: Inspection) -> np.ndarray:
    """Return a group number for each row, int64, shape (N,); byte-identical files share one."""
    return _isolate(np.unique(inspection.sha256, return_inverse=True)[1], inspection.sha256 == "")


def group_near_duplicates(inspection: Inspection, bits: int = NEAR_BITS) -> np.ndarray:
    """Return a group number for each row, int64, shape (N,); rows linked by a chain of near-duplicates share one.

    Two images are near-duplicates if their 64-bit perceptual hashes [1]_ differ in at most `bits` bits. Memory
    grows linearly with the number of images, and so does time, unless very many are alike.

    References
    ----------
    .. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    .. [2] G. Manku et al., "Detecting Near-Duplicates for Web Crawling", WWW 2007: blocks in common.
    """
    hashes, row_hash = np.unique(inspection.phash, return_inverse=True)
    return _isolate(connect_pairs(_find_near_pairs(hashes, bits), len(hashes))[row_hash], inspection.bad)


def connect_pairs(pairs: Iterable[np.ndarray], nodes: int) -> np.ndarray:
    """Return the connected component, int64 (nodes,), of each node, with few of the `pairs` in memory at a time.

    Parameters
    ----------
    pairs : iterable of ndarray of int64
        The edges, in parts (2, n).
    nodes : int

    Examples
    --------
    >>> connect_pairs([np.array([[0], [3]]), np.array([[2, 0], [3, 3]])], 4)
    array([0, 1, 0, 0])
    """
    found, waiting = [np.zeros((2, 0), np.int64)], 0
    for part in pairs:
        found.append(part)
        waiting += part.shape[1]
        if waiting > _MOST_PAIRS:  # nearly all are connected: reduce N^2 pairs to N
            group = _connected(np.concatenate(found, axis=1), nodes)
            first = np.unique(group, return_index=True)[1]
            found, waiting = [np.stack([np.arange(len(group)), first[group]])], 0
    return _connected(np.concatenate(found, axis=1), nodes)


def _find_near_pairs(hashes: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """Yield the pairs of different `hashes` that differ in at most `bits` bits, int64 (2, pairs), some repeatedly.

    The 64 bits are cut into one block more than `bits`, so such a pair has a block in common (Manku et al. 2007):
    only hashes with the same block are compared.
    """
    edges = np.linspace(0, 64, bits + 2).astype(int).tolist()
    for low, high in tqdm(list(pairwise(edges)), "comparing hashes", disable=None, delay=2, leave=False):
        block = hashes >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(block, kind="stable")
        block, sorted_hashes = block[order], hashes[order]
        at = np.arange(len(hashes))
        for lag in range(1, len(hashes)):
            at = at[at < len(hashes) - lag]
            at = at[block[at] == block[at + lag]]  # of those that were equal at the lag before
            if not len(at):
                break
            near = at[np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + lag]) <= bits]
            yield np.stack([order[near], order[near + lag]])


def _connected(pairs: np.ndarray, nodes: int) -> np.ndarray:
    """Return the connected component, int64, shape (nodes,), of each node of the graph with these edges."""
    graph = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def merge_groups(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Return the finest grouping, int64, shape (N,), that keeps every group of `groupings` whole.

    Examples
    --------
    >>> merge_groups([np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7])])
    array([0, 0, 0, 1])
    """
    n = nodes = len(groupings[0])
    pairs = []
    for grouping in groupings:  # a bipartite graph of rows and their groups
        number = np.unique(grouping, return_inverse=True)[1]
        pairs.append(np.stack([np.arange(n), number + nodes]))
        nodes += int(number.max(initial=-1)) + 1
    return _connected(np.concatenate(pairs, axis=1), nodes)[:n]


def _isolate(group: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Return `group` with each row of the mask `alone` in a group of its own."""
    return np.where(alone, group.max(initial=0) + 1 + np.arange(len(group)), group).astype(np.int64)
