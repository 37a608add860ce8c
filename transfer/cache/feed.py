"""Feeds the tail: what the frozen trunk puts out, computed once and kept, as often as training wants it."""

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from transfer import stopping
from transfer.cache.key import about, view_seed
from transfer.config import CacheConfig
from transfer.data.images import Augmentation, ImageBatches
from transfer.model import Precision, TransferModel
from transfer.store import CannotKeep, Located, Shelf, Store

log = logging.getLogger(__name__)

_BATCH = 64  # images on their way into the trunk at a time
_SEAL_SECONDS = 120  # after so many, what was computed is kept, should the process be killed


class TrunkCache:
    """Trunk outputs under a fingerprint of all that they depend on (law 4).

    Parameters
    ----------
    config : CacheConfig
    store : Store, optional
        Where they are kept (default: the user's cache, as large as `config` says).

    Attributes
    ----------
    seconds : float
        Spent so far on computing them.
    """

    def __init__(self, config: CacheConfig | None = None, store: Store | None = None) -> None:
        config = config or CacheConfig()
        self.views = config.views
        self.store = (store or Store(limit=int(config.cache_gb * 2**30))) if config.cache else None
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
        """Return the feed of `model`'s tail for the images at `paths`, whose bytes have the sha256 `digests`."""
        return Feed(self, model, paths, digests, batch_size, workers)


class Feed:
    """Gives the tail its input for rows of a table, from what is kept or from the images.

    Make it through :meth:`TrunkCache.feed`; it holds for the trunk as it was then.
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
        self.cache, self.model, self.paths, self.digests = cache, model, paths, digests
        self.batch_size, self.workers = batch_size, workers
        self.store = cache.store if model.cut else None
        self._shelves: dict[int, tuple[Shelf, Located]] = {}

    def prepare(self, rows: np.ndarray, augmentation: Augmentation | None = None) -> None:
        """Compute what is not kept yet of `rows`, in each view that `augmentation` draws from."""
        for view in range(1, self.cache.views + 1) if augmentation else (0,):
            if self.store:
                self._fill(rows, view, augmentation, self.store)

    def batches(
        self,
        rows: np.ndarray,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield (rows, activations) in the order of `rows`, on the model's device.

        With an `augmentation` each row comes in one of its views, drawn from `seed` and `epoch`. Those batches before
        number `first`, from 0, are left out.
        """
        views = np.zeros(len(rows), dtype=np.int64)
        if augmentation and self.cache.views:
            views = np.random.default_rng((seed, epoch)).integers(1, self.cache.views + 1, size=len(rows))
        self.prepare(rows, augmentation)
        if self.store is None or (augmentation and not self.cache.views):
            yield from self._computed(rows, views, augmentation, seed, epoch, first)
        else:
            yield from self._kept(rows[first * self.batch_size :], views[first * self.batch_size :])

    def every_view(self, rows: np.ndarray, augmentation: Augmentation | None = None) -> tuple[np.ndarray, Tensor]:
        """Return rows (V * N,) and their activations: the evaluation view of `rows`, then each that is kept."""
        parts = list(self.batches(rows))
        for view in range(1, self.cache.views + 1) if augmentation else ():
            views = np.full(len(rows), view)
            self.prepare(rows, augmentation)
            kept = self.store is not None
            parts += self._kept(rows, views) if kept else self._computed(rows, views, augmentation, 0, 0)
        return np.concatenate([some for some, _ in parts]), torch.cat([activation for _, activation in parts])

    def _kept(self, rows: np.ndarray, views: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        device = next(self.model.backbone.parameters()).device
        for start in range(0, len(rows), self.batch_size):
            some, drawn = rows[start : start + self.batch_size], views[start : start + self.batch_size]
            out: np.ndarray | None = None
            for view in np.unique(drawn).tolist():
                located = self._shelves[view][1]
                here = np.flatnonzero(drawn == view)
                values = located.take(some[here])
                if len(here) == len(some):
                    out = values
                else:
                    out = np.empty((len(some), *values.shape[1:]), values.dtype) if out is None else out
                    out[here] = values
            assert out is not None
            yield some, _unpacked(out).to(device, non_blocking=True)

    def _computed(
        self,
        rows: np.ndarray,
        views: np.ndarray,
        augmentation: Augmentation | None,
        seed: int,
        epoch: int,
        first: int = 0,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        for index, images in self._images(rows, views, augmentation, seed, epoch, self.batch_size, first):
            yield index.numpy(), self.model.trunk(images)

    def _images(
        self,
        rows: np.ndarray,
        views: np.ndarray,
        augmentation: Augmentation | None,
        seed: int,
        epoch: int,
        batch_size: int,
        first: int = 0,
    ) -> ImageBatches:
        kept = augmentation is not None and self.cache.views > 0
        return ImageBatches(
            self.paths,
            self.model.backbone.preprocessing,
            batch_size=batch_size,
            order=rows,
            first=first,
            digests=self.digests,
            augmentation=augmentation,
            seed=seed,
            epoch=epoch,
            keys=[view_seed(self.digests[row], int(view)) for row, view in zip(rows, views, strict=True)]
            if kept
            else None,
            workers=self.workers,
            pin=next(self.model.backbone.parameters()).is_cuda,
        )

    def _fill(self, rows: np.ndarray, view: int, augmentation: Augmentation | None, store: Store) -> None:
        """Compute and keep what is missing of `rows` in one view; where that cannot be, keep nothing from here on."""
        if view not in self._shelves:
            shelf = self._shelf(self.model.cut, self.model.cut_precision, view, augmentation, store)
            self._shelves[view] = shelf, shelf.locate(self.digests)
        shelf, located = self._shelves[view]
        missing = rows[~located.have[rows]]
        if not len(missing):
            return
        missing = missing[np.sort(np.unique(self.digests[missing], return_index=True)[1])]
        began = sealed = time.perf_counter()
        try:
            with (
                tqdm(total=len(missing), desc="frozen trunk", unit="image", disable=None, leave=False) as bar,
                shelf.writing(len(missing)) as writer,
            ):
                for some, activation in self._made(missing, view, augmentation, store):
                    writer.append(self.digests[some], _packed(self.model.rounded(activation)))
                    bar.update(len(some))
                    if time.perf_counter() - sealed > _SEAL_SECONDS:
                        writer.commit()
                        sealed = time.perf_counter()
                    stopping.check()  # what is there so far is kept
            located = shelf.locate(self.digests)
            self._shelves[view] = shelf, located
            if not located.have[rows].all():
                raise CannotKeep(f"what was just written to {shelf.folder} is not there")
        except CannotKeep as error:
            log.warning("%s; what is frozen is computed anew each epoch", error)
            self.store = None
        finally:
            self.cache.seconds += time.perf_counter() - began

    def _made(
        self, rows: np.ndarray, view: int, augmentation: Augmentation | None, store: Store
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield float32 activations at the cut, from those of the nearest lower cut that are kept, else from images."""
        run, backbone = self.model.ready_trunk(), self.model.backbone
        for cut in range(self.model.cut - 1, 0, -1):
            if not len(rows) or not backbone.cuttable(cut):
                continue
            located = self._shelf(cut, "float32", view, augmentation, store).locate(self.digests)
            there = rows[located.have[rows]]
            rows = rows[~located.have[rows]]
            for start in range(0, len(there), _BATCH):
                some = there[start : start + _BATCH]
                yield some, run.onward(_unpacked(located.take(some)), cut)
        for index, images in self._images(rows, np.full(len(rows), view), augmentation, 0, 0, _BATCH):
            yield index.numpy(), run(images)

    def _shelf(
        self, cut: int, precision: Precision, view: int, augmentation: Augmentation | None, store: Store
    ) -> Shelf:
        backbone = self.model.backbone
        shape = backbone.shape(cut)
        shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
        pooled = cut == len(backbone.stages)
        dtype = np.dtype("float32" if pooled else precision)
        return store.shelf("trunk", about(self.model, cut, precision, view, augmentation), shape, dtype)


def _packed(activation: Tensor) -> np.ndarray:
    """Return activations as they are kept: channels last."""
    return (activation.permute(0, 2, 3, 1) if activation.ndim == 4 else activation).cpu().contiguous().numpy()


def _unpacked(values: np.ndarray) -> Tensor:
    """Return what :func:`_packed` was given, without a copy."""
    activation = torch.from_numpy(values)
    return activation.permute(0, 3, 1, 2) if activation.ndim == 4 else activation
