"""Image files -> batches: decoded by threads, prepared or augmented, the same for any number of them."""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from transfer.data.decode import DECODER, BadImage, decode
from transfer.data.preprocessing import Preprocessing, prepare, to_tensor, view

__all__ = [
    "DECODER",
    "Augmentation",
    "BadImage",
    "ImageBatches",
    "Preprocessing",
    "augment",
    "decode",
    "prepare",
]

_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as Inception had it and everyone since
_AHEAD = 2  # batches in preparation beside the one in use


@dataclass(frozen=True)
class Augmentation:
    """How a training view differs from the evaluation view.

    Parameters
    ----------
    crop_scale : tuple of float, optional
        Smallest and largest area of a random crop, as a fraction of the image's; none: the evaluation view.
    flip : bool
        Mirror left to right, half of the time.
    jitter : float
        Brightness, contrast and saturation are each scaled by a factor from ``1 - jitter`` to ``1 + jitter``.
    """

    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    jitter: float = 0.0


def augment(
    image: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> Tensor:
    """Return a random training view of an RGB image, uint8, shape (3, H, W).

    The random resized crop is that of Szegedy et al., "Going Deeper with Convolutions", 2015.
    """
    _, height, width = preprocessing.input_size
    if augmentation.crop_scale is None:
        image = view(image, preprocessing)
    else:
        box = _random_box(image.width, image.height, augmentation.crop_scale, rng)
        image = image.resize((width, height), preprocessing.resampling, box=box)
    if augmentation.flip and rng.random() < 0.5:
        image = ImageOps.mirror(image)
    if augmentation.jitter:
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            factor = rng.uniform(max(0.0, 1 - augmentation.jitter), 1 + augmentation.jitter)
            image = enhance(image).enhance(factor)
    return to_tensor(image)


def _random_box(
    width: int, height: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a crop of random area and aspect ratio."""
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(_ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    # An image too long or too narrow for any such crop: the largest in the middle whose aspect is allowed.
    w = min(width, max(1, round(height * _ASPECT[1])))
    h = min(height, max(1, round(width / _ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


class ImageBatches:
    """Batches of prepared images, decoded by a pool of threads a few batches ahead.

    Parameters
    ----------
    paths : sequence of str
        Of the whole table.
    preprocessing : Preprocessing
    batch_size : int
        Images in a batch; the last one may have fewer.
    order : ndarray of int64, optional
        Rows of `paths`, in the order to yield them (default: all, as they are).
    augmentation : Augmentation, optional
        None: the evaluation view. Draws depend on `seed`, `epoch` and the row alone.
    seed, epoch : int
    workers : int, optional
        Threads (default: one per core). No effect on the result.

    Yields
    ------
    rows : Tensor of int64, shape (B,)
    images : Tensor of uint8, shape (B, 3, H, W)

    Raises
    ------
    BadImage
        While iterating: a file that does not decode; names it.
    """

    def __init__(
        self,
        paths: Sequence[str] | np.ndarray,
        preprocessing: Preprocessing,
        *,
        batch_size: int = 64,
        order: np.ndarray | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
        workers: int | None = None,
    ) -> None:
        self.paths = paths
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.order = np.arange(len(paths)) if order is None else np.asarray(order, dtype=np.int64)
        self.augmentation = augmentation
        self.seed = seed
        self.epoch = epoch
        self.workers = workers or os.cpu_count() or 1

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        batches = (self.order[i : i + self.batch_size].tolist() for i in range(0, len(self.order), self.batch_size))
        pool = ThreadPoolExecutor(self.workers)
        try:
            waiting: deque[tuple[list[int], list[Future[Tensor]]]] = deque()

            def submit(count: int) -> None:
                for rows in islice(batches, count):
                    waiting.append((rows, [pool.submit(self._load, row) for row in rows]))

            submit(1 + _AHEAD)
            while waiting:
                rows, images = waiting.popleft()
                batch = torch.stack([image.result() for image in images])
                submit(1)
                yield torch.tensor(rows), batch
        finally:  # also when the loop that uses this stops early
            pool.shutdown(cancel_futures=True)

    def _load(self, row: int) -> Tensor:
        image = decode(str(self.paths[row]))
        if self.augmentation is None:
            return prepare(image, self.preprocessing)
        rng = np.random.default_rng((self.seed, self.epoch, row))
        return augment(image, self.preprocessing, self.augmentation, rng)
