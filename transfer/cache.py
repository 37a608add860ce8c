"""What the frozen trunk puts out: computed once, then fed to the tail as often as training wants."""

import hashlib
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from transfer.data.images import DECODER, Augmentation, ImageBatches
from transfer.model import TransferModel

KEEP_BYTES = 4 << 30


class TrunkCache:
    """Trunk outputs kept in memory under a fingerprint of the trunk, its cut, and the images' bytes (law 4).

    Parameters
    ----------
    limit : int
        Bytes in all; what does not fit is computed anew each epoch, with the same result.

    Attributes
    ----------
    seconds : float
        Spent so far on filling it.
    too_large : set of str
        What has been tried, and never fits.
    """

    def __init__(self, limit: int = KEEP_BYTES) -> None:
        self.limit = limit
        self._kept: dict[str, Tensor] = {}
        self.too_large: set[str] = set()
        self.seconds = 0.0

    def feed(
        self,
        model: TransferModel,
        paths: np.ndarray,
        digests: np.ndarray,
        *,
        batch_size: int,
        workers: int | None = None,
    ) -> "Feed":
        """Return the feed of `model`'s tail for the images at `paths`, whose bytes have `digests`."""
        return Feed(self, model, paths, digests, batch_size, workers)

    def get(self, key: str) -> Tensor | None:
        """Return what is kept under `key`, marking it as the most recently used."""
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)
        return self._kept.get(key)

    def make_room(self, size: int) -> bool:
        """Drop the least recently used until `size` bytes fit; return whether they do."""
        if size > self.limit:
            return False
        while self._kept and sum(map(_bytes, self._kept.values())) + size > self.limit:
            del self._kept[next(iter(self._kept))]
        return True

    def put(self, key: str, output: Tensor) -> None:
        """Keep `output` under `key`."""
        self._kept[key] = output


class Feed:
    """Gives the tail its input for rows of a table, from what is kept or from the images.

    Make it through :meth:`TrunkCache.feed`.
    """

    def __init__(
        self,
        cache: TrunkCache,
        model: TransferModel,
        paths: np.ndarray,
        digests: np.ndarray,
        batch_size: int,
        workers: int | None,
    ) -> None:
        self.cache, self.model, self.paths = cache, model, paths
        self.batch_size, self.workers = batch_size, workers
        self.key = _key(model, digests)

    def batches(
        self, rows: np.ndarray, *, augmentation: Augmentation | None = None, seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield (rows, activations) in the order of `rows`, on the model's device."""
        device = next(self.model.backbone.parameters()).device
        kept = self._kept() if augmentation is None else None
        if kept is not None:
            for start in range(0, len(rows), self.batch_size):
                some = rows[start : start + self.batch_size]
                yield some, kept[torch.from_numpy(some)].to(device)
            return
        batches = ImageBatches(
            self.paths,
            self.model.backbone.preprocessing,
            batch_size=self.batch_size,
            order=rows,
            augmentation=augmentation,
            seed=seed,
            epoch=epoch,
            workers=self.workers,
        )
        for index, images in batches:
            yield index.numpy(), self.model.trunk(images.to(device))

    def _kept(self) -> Tensor | None:
        """Return the trunk's output for every row, computing it on first use; None where it is too large to keep."""
        kept = self.cache.get(self.key)
        if kept is not None or self.key in self.cache.too_large:
            return kept
        began = time.perf_counter()
        device = next(self.model.backbone.parameters()).device
        batches = ImageBatches(self.paths, self.model.backbone.preprocessing, batch_size=64, workers=self.workers)
        what = "images" if self.model.cut == 0 else "frozen trunk"
        with tqdm(total=len(self.paths), desc=what, unit="image", disable=None, leave=False) as bar:
            for rows, images in batches:
                output = self.model.trunk(images.to(device)).cpu()
                if kept is None:
                    if not self.cache.make_room(_bytes(output) // len(output) * len(self.paths)):
                        self.cache.too_large.add(self.key)
                        return None
                    kept = output.new_empty((len(self.paths), *output.shape[1:]))
                kept[rows] = output
                bar.update(len(rows))
        assert kept is not None
        self.cache.put(self.key, kept)
        self.cache.seconds += time.perf_counter() - began
        return kept


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _key(model: TransferModel, digests: np.ndarray) -> str:
    """Return a fingerprint of the trunk's tensors, the cut, the preprocessing and the images' bytes."""
    digest = hashlib.sha256()
    backbone = model.backbone
    device = str(next(backbone.parameters()).device)
    digest.update(repr((backbone.name, model.cut, backbone.preprocessing, DECODER, device)).encode())
    for name, tensor in backbone.network.state_dict().items():
        if backbone.stage_of(name) < model.cut:
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update("\n".join(map(str, digests)).encode())
    return digest.hexdigest()
