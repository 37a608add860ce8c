"""All images of a data set as pixels of one size, decoded once and cached on disk."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from transfer.config.train import DataConfig
from transfer.data.images.batches import ImageBatches
from transfer.data.images.preprocessing import Preprocessing
from transfer.data.images.read import DECODER
from transfer.data.splits import Splits, split
from transfer.data.table import ImageTable
from transfer.disk_cache import CacheWriteError, DiskCache
from transfer.training.setup import Images


@dataclass(frozen=True)
class PixelSet:
    """Pixels of all images, uint8 (N, 3, H, W), with their table and its split."""

    table: ImageTable
    pixels: np.ndarray
    parts: Splits


def load_pixel_sets(
    config: DataConfig, images: Images, side: int, seeds: Sequence[int], disk_cache: DiskCache | None = None
) -> dict[int, PixelSet]:
    """Return `images` as pixels with the split of each seed, the same as that of `transfer train`."""
    pixels = read_pixels(images, side, disk_cache)
    parts = {
        seed: split(
            images.table,
            images.inspection,
            test=config.test,
            val=config.val,
            shots=config.shots,
            seed=seed,
            keep_near_duplicates_together=config.keep_near_duplicates_together,
        )
        for seed in seeds
    }
    return {seed: PixelSet(images.table, pixels, part) for seed, part in parts.items()}


def read_pixels(images: Images, side: int, disk_cache: DiskCache | None = None) -> np.ndarray:
    """Return every image of a set, uint8, shape (N, 3, side, side), resized bilinearly to a square.

    Parameters
    ----------
    images : Images
    side : int
    disk_cache : DiskCache, optional
        Cache to read the pixels from, and to add missing ones to.
    """
    table, digests = images.table, images.inspection.sha256
    squashed = Preprocessing((3, side, side), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 1.0, "squash")
    pixels = np.empty((len(table), 3, side, side), np.uint8)
    missing = np.arange(len(table))
    row_cache = None
    if disk_cache:
        key = {"decoder": DECODER, "preprocessing": squashed.to_dict()}
        row_cache = disk_cache.open_rows("pixels", key, pixels.shape[1:], np.uint8)
        located = row_cache.locate(digests)
        pixels[located.found] = located.take(np.flatnonzero(located.found))
        missing = np.flatnonzero(~located.found)
    with tqdm(total=len(missing), desc="decoding", unit="image", disable=None, leave=False) as bar:
        for rows, batch in ImageBatches(table.paths, squashed, order=missing):
            pixels[rows.numpy()] = batch.numpy()
            bar.update(len(rows))
    if row_cache and len(missing):
        unique = missing[np.sort(np.unique(digests[missing], return_index=True)[1])]
        with contextlib.suppress(CacheWriteError), row_cache.open_writer(len(unique)) as writer:
            writer.append(digests[unique], pixels[unique])
    return pixels


def compute_scaling(pixels: Tensor, rows: np.ndarray, inputs: str) -> tuple[Tensor, Tensor]:
    """Return the offset and the scale of each channel, both of shape (3, 1, 1), float32: (pixel - offset) / scale.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (N, 3, H, W)
    rows : ndarray of int64
        Training images, for the mean and standard deviation per channel of ``standardised``.
    inputs : str
        See :class:`course.config.ScratchConfig`.
    """
    if inputs != "standardised":
        return torch.zeros(3, 1, 1), torch.full((3, 1, 1), 255.0 if inputs == "unit" else 1.0)
    counts = torch.stack([torch.bincount(pixels[rows, channel].flatten(), minlength=256) for channel in range(3)])
    share, value = counts.double() / counts.sum(1, keepdim=True), torch.arange(256.0, dtype=torch.float64)
    mean = (share * value).sum(1)
    deviation = ((share * value.square()).sum(1) - mean.square()).clamp_min(0).sqrt()
    return mean.float().view(3, 1, 1), deviation.clamp_min(1.0).float().view(3, 1, 1)
