"""Batches of images, decoded and augmented by threads; the result does not depend on their number."""

import hashlib
import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from transfer.data.images.augment import Augmentation, augment
from transfer.data.images.decode import BadImage
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import read_pixels
from transfer.data.shards.prefetch import Contents
from transfer.runtime import distributed

B = TypeVar("B")

_OPENING = threading.Lock()  # held while torch's default number of threads is that of another pool


@dataclass(eq=False)
class ImageBatches:
    """Batches of prepared images, decoded by a pool of threads a few batches ahead.

    Parameters
    ----------
    paths : sequence of str
        Paths of the whole table, or addresses of images in shards.
    batch_size : int
        Images per batch; the last batch may have fewer.
    order : ndarray of int64, optional
        Rows of `paths`, in the order to yield them (default: all, in order).
    augmentation : Augmentation, optional
        None: the evaluation view.
    keys : sequence of tuple of int
        Random keys of the augmentation, one for each element of `order`, such as those of :func:`get_draw_keys`.
    digests : sequence of str, optional
        Required SHA-256 of each of `paths`, in hex.
    workers : int, optional
        Threads (default: one per core, shared with other processes of the run). No effect on the result.
    pin : bool
        Use pinned memory, so that copies to a GPU run in the background.
    bad : dict of int to str, optional
        If given, an image that does not decode is black, and its row and the reason are added here.

    Yields
    ------
    rows : Tensor of int64, shape (B,)
    images : Tensor of uint8, shape (B, 3, H, W)

    Raises
    ------
    BadImage
        While iterating: a file that does not decode or was changed; names it.
    """

    paths: Sequence[str] | np.ndarray
    preprocessing: Preprocessing
    _: KW_ONLY
    batch_size: int = 64
    order: np.ndarray | None = None
    augmentation: Augmentation | None = None
    keys: Sequence[tuple[int, ...]] = ()
    digests: Sequence[str] | np.ndarray | None = None
    workers: int | None = None
    pin: bool = False
    bad: dict[int, str] | None = None

    def __post_init__(self) -> None:
        self._rows = np.arange(len(self.paths)) if self.order is None else np.asarray(self.order, dtype=np.int64)

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(self):
            return
        workers = min(self.workers or distributed.count_cores_per_process(), len(self._rows))
        pool = open_single_threads(workers)
        contents = Contents(self.paths, self._rows)
        try:
            submitted = (self._submit(pool, contents, i) for i in range(0, len(self._rows), self.batch_size))
            batches = (((rows, images), loading) for rows, images, loading in submitted)
            yield from _load_ahead(batches, workers, self.batch_size)
        finally:  # also if the consumer stops early
            contents.close()
            pool.shutdown(cancel_futures=True)

    def _submit(
        self, pool: ThreadPoolExecutor, contents: Contents, start: int, skipped: int = 0
    ) -> tuple[Tensor, Tensor, list[Future[None]]]:
        """Submit the batch that starts at `start` of the order to `pool`, with new memory for its images.

        Its first `skipped` images are black.
        """
        rows = torch.from_numpy(self._rows[start : start + self.batch_size].copy())
        shape = len(rows), *self.preprocessing.input_size
        with torch.inference_mode(False):  # inference mode is per thread: others could not write
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin, memory_format=torch.channels_last)
        images[:skipped] = 0
        places = range(start + skipped, start + len(rows))
        return rows, images, [pool.submit(self._fill, contents, i, images[i - start]) for i in places]

    def _fill(self, contents: Contents, place: int, image: Tensor) -> None:
        """Load the image at `place` of the order into `image`, or record that it is bad."""
        try:
            self._load(contents, place, image)
        except BadImage as error:
            if self.bad is None:
                raise
            self.bad[int(self._rows[place])] = str(error)
            image.zero_()

    @torch.no_grad()
    def _load(self, contents: Contents, place: int, image: Tensor) -> None:
        """Load the image at `place` of the order into `image`."""
        file, name, levels = contents[place], contents.path(place), self.preprocessing.levels
        if self.digests is not None:
            file = _read_checked(file, name, str(self.digests[self._rows[place]]))
        if self.augmentation is None:
            pixels = read_pixels(file, name=name, at_least=self.preprocessing.needed, levels=levels)
            image.copy_(prepare(pixels, self.preprocessing))
        else:
            needed = self.augmentation.needed(self.preprocessing)
            pixels = read_pixels(file, name=name, at_least=needed, levels=levels)
            rng = np.random.default_rng(self.keys[place])
            image.copy_(augment(pixels, self.preprocessing, self.augmentation, rng))


@dataclass(eq=False)
class StreamedBatch:
    """A batch of :func:`stream_batches`.

    Attributes
    ----------
    paths : list of str
    start : int
        Place of the first image that is wanted. Those before it are not read; they are black.
    images : Tensor of uint8, shape (len(paths), 3, H, W)
        Made by :func:`stream_batches`.
    bad : dict of int to str
        Places of images that do not decode, and why. They are black.
    """

    paths: list[str]
    start: int = 0
    images: Tensor = field(init=False)
    bad: dict[int, str] = field(default_factory=dict)


def stream_batches(
    batches: Iterable[StreamedBatch | None],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    pin: bool = False,
    skip_bad: bool = False,
) -> Iterator[StreamedBatch]:
    """Yield `batches`, of any number, with their images, which threads decode a few batches ahead.

    None among `batches` means that the next one is not there yet: those before it are yielded first.

    Parameters
    ----------
    batches : iterable of StreamedBatch or None
    batch_size : int
        Images of most batches.
    pin : bool
        Use pinned memory, so that copies to a GPU run in the background.
    skip_bad : bool
        Note an image that does not decode, instead of raising.

    Raises
    ------
    BadImage
        A file that does not decode; names it.
    """
    workers = distributed.count_cores_per_process()
    pool = open_single_threads(workers)

    def submit(batch: StreamedBatch) -> tuple[StreamedBatch, list[Future[None]]]:
        bad = batch.bad if skip_bad else None
        alone = ImageBatches(batch.paths, preprocessing, batch_size=len(batch.paths), pin=pin, bad=bad)
        _, batch.images, loading = alone._submit(pool, Contents(batch.paths), 0, batch.start)
        return batch, loading

    try:
        yield from _load_ahead((submit(batch) if batch else None for batch in batches), workers, batch_size)
    finally:  # also if the consumer stops early
        pool.shutdown(cancel_futures=True)


def _load_ahead(submitted: Iterator[tuple[B, list[Future[None]]] | None], workers: int, batch_size: int) -> Iterator[B]:
    """Yield batches in order as they are loaded, some ahead: an image for each worker, and two more batches."""
    most = 2 + math.ceil(workers / batch_size)
    waiting: deque[tuple[B, list[Future[None]]]] = deque()
    ended = False

    def fill(*, wait: bool) -> bool:
        """Take batches up to `most`, or those that are there, at least one if `wait`; return whether that is all."""
        while len(waiting) < most:
            try:
                coming = next(submitted)
            except StopIteration:
                return True
            if coming:
                waiting.append(coming)
            elif waiting or not wait:
                return False
        return False

    while True:
        ended = ended or fill(wait=True)
        if not waiting:
            return
        batch, loading = waiting.popleft()
        for image in loading:
            image.result()
        ended = ended or fill(wait=False)
        yield batch


def _read_checked(file: str | bytes, name: str, digest: str) -> bytes:
    """Return the content of `file` after checking its SHA-256."""
    if isinstance(file, str):
        try:
            file = Path(file).read_bytes()
        except OSError as error:
            raise BadImage(f"bad image {name}: {error.strerror or error}") from error
    if hashlib.sha256(file).hexdigest() != digest:
        raise BadImage(f"{name} was changed since the run started: restore it, or start a new run")
    return file


def get_draw_keys(order: np.ndarray, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the random key of the augmentation of each element of `order` (N,).

    It depends only on `seed`, `epoch`, the row and the number of its earlier occurrences.

    Examples
    --------
    >>> get_draw_keys(np.array([5, 0, 5]), seed=1, epoch=9)
    [(1, 9, 5, 0), (1, 9, 0, 0), (1, 9, 5, 1)]
    """
    seen: Counter[int] = Counter()
    keys: list[tuple[int, ...]] = []
    for row in order.tolist():
        keys.append((seed, epoch, row, seen[row]))
        seen[row] += 1
    return keys


def open_single_threads(count: int) -> ThreadPoolExecutor:
    """Return a pool of `count` threads in each of which torch uses one core."""
    with _OPENING:
        return _open_single_threads(count)


def _open_single_threads(count: int) -> ThreadPoolExecutor:
    before = torch.get_num_threads()
    started = threading.Barrier(count + 1)

    def use_one_core() -> None:
        torch.get_num_threads()  # the first call in a thread would reset the number
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, initializer=use_one_core)
    try:
        for _ in range(count):
            pool.submit(int)  # starts one thread each, as none is idle before the barrier
        started.wait()
    except BaseException:  # no more threads, or a signal: release the waiting ones
        started.abort()
        raise
    torch.set_num_threads(before)  # setting it in a thread also changes the default of new threads
    return pool
