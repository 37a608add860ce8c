"""Feed activations of the frozen trunk to the trained tail, computed once and cached."""

import copy
import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from transfer.config.train import CacheConfig
from transfer.data.images.augment import Augmentation
from transfer.data.images.batches import ImageBatches, get_draw_keys
from transfer.disk_cache import CacheWriteError, DiskCache, LocatedRows, RowCache
from transfer.errors import TransferError
from transfer.feature_cache.key import describe_activation, get_view_seed
from transfer.model import Precision, TransferModel
from transfer.runtime import distributed, signals
from transfer.runtime.device import copy_to_cpu, move_to
from transfer.runtime.distributed import batches as shared
from transfer.runtime.malloc import keep_freed_memory

log = logging.getLogger(__name__)

_BATCH = 64  # images on their way into the trunk at a time
_SEAL_SECONDS = 120  # between commits to disk, which survive a kill


class TrunkCache:
    """Trunk outputs under a fingerprint of all that they depend on.

    By default they are in the user's cache, as large as `config` says. `seconds` is the time spent so far on computing
    them.
    """

    def __init__(self, config: CacheConfig | None = None, disk_cache: DiskCache | None = None) -> None:
        config = config or CacheConfig()
        self.views = config.views
        self.disk_cache = (disk_cache or DiskCache(limit=int(config.cache_gb * 2**30))) if config.cache else None
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
    """Provides the input of the tail for rows of a table, from the cache or from the images.

    Make it through :meth:`TrunkCache.feed`; it holds for the trunk as it was then. Where several processes run
    together, all ask it for the same rows at the same time: each runs the trunk for its part of them.
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
        self.disk_cache = cache.disk_cache if model.cut else None
        self._row_caches: dict[int, tuple[RowCache, LocatedRows]] = {}

    def with_batch_size(self, batch_size: int) -> "Feed":
        """Return this feed with batches of another size; what is cached is shared."""
        feed = copy.copy(self)
        feed.batch_size = batch_size
        return feed

    @property
    def splits_batches(self) -> bool:
        """Whether each process gets its own rows of a batch alone: where a tail has yet to run over them."""
        return distributed.get_world_size() > 1 and self.model.cut < len(self.model.backbone.stages)

    @property
    def has_features(self) -> bool:
        """Whether it only reads pooled features, once they are prepared, by this process alone and on its CPU."""
        model = self.model
        on_cpu = next(model.backbone.parameters()).device.type == "cpu"
        pooled = model.cut == len(model.backbone.stages)
        return on_cpu and pooled and self.disk_cache is not None and distributed.get_world_size() == 1

    def gather_batch(self, own: Tensor, count: int, sizes: tuple[int, ...] | None = None) -> Tensor:
        """Return all `count` rows of a batch from what this process has of a split one (`sizes`: each process's)."""
        return shared.gather_rows(own, count, sizes) if self.splits_batches else own

    def find_cached(self, rows: np.ndarray) -> np.ndarray:
        """Return for which of `rows` the activation of the evaluation view is cached, bool (N,)."""
        if not self.disk_cache or not len(rows):
            return np.zeros(len(rows), bool)
        located = self._open_rows(self.model.cut, self.model.cut_precision, 0, None).locate(self.digests)
        return located.found[rows]

    @keep_freed_memory()
    def prepare(self, rows: np.ndarray, augmentation: Augmentation | None = None) -> None:
        """Compute and cache the activations of `rows` that are missing, in each view of `augmentation`."""
        for view in range(1, self.cache.views + 1) if augmentation else (0,):
            if self.disk_cache:
                self._fill(rows, view, augmentation)

    def batches(
        self,
        rows: np.ndarray,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
        split: bool = False,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield (rows, activations) in the order of `rows`, on the model's device.

        With an `augmentation` each row comes in one of its views, sampled with `seed` and `epoch`. Batches before
        number `first`, counted from 0, are skipped. With `split`, if :attr:`splits_batches`, each process gets only the
        activations of its own rows of each batch.

        Raises
        ------
        TransferError
            There are more processes than rows in a batch.
        """
        split = split and self.splits_batches
        if split and self.batch_size < distributed.get_world_size():
            raise TransferError(
                f"--batch-size {self.batch_size} is less than the {distributed.get_world_size()} processes"
            )
        views = np.zeros(len(rows), dtype=np.int64)
        if augmentation and self.cache.views:
            views = np.random.default_rng((seed, epoch)).integers(1, self.cache.views + 1, size=len(rows))
        self.prepare(rows, augmentation)
        skipped = first * self.batch_size
        if self.disk_cache and (self.cache.views or not augmentation):
            yield from self._cached(rows[skipped:], views[skipped:], split)
        else:
            keys = self._draw_keys(rows, views, seed, epoch) if augmentation else []
            yield from self._computed(rows[skipped:], augmentation, keys[skipped:], split)

    def load_all_views(self, rows: np.ndarray, augmentation: Augmentation | None = None) -> tuple[np.ndarray, Tensor]:
        """Return rows (V * N,) and their activations: the evaluation view of `rows`, then each cached view."""
        parts = list(self.batches(rows))
        self.prepare(rows, augmentation)
        for view in range(1, self.cache.views + 1) if augmentation else ():
            views = np.full(len(rows), view)
            if self.disk_cache:
                parts += self._cached(rows, views)
            else:
                parts += self._computed(rows, augmentation, self._draw_keys(rows, views))
        return np.concatenate([batch for batch, _ in parts]), torch.cat([activation for _, activation in parts])

    def _draw_keys(self, rows: np.ndarray, views: np.ndarray, seed: int = 0, epoch: int = 0) -> list[tuple[int, ...]]:
        """Return the random key of the augmentation of each row: of its cached view, else of this epoch."""
        if self.cache.views:
            return [get_view_seed(self.digests[row], view) for row, view in zip(rows, views.tolist(), strict=True)]
        return get_draw_keys(rows, seed, epoch)

    def _cached(self, rows: np.ndarray, views: np.ndarray, split: bool = False) -> Iterator[tuple[np.ndarray, Tensor]]:
        device = next(self.model.backbone.parameters()).device
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            own = shared.get_local_rows(len(batch)) if split else slice(None)
            local, sampled = batch[own], views[start : start + self.batch_size][own]
            out: np.ndarray | None = None
            for view in np.unique(sampled).tolist():
                located = self._row_caches[view][1]
                at = np.flatnonzero(sampled == view)
                values = located.take(local[at])
                if len(at) == len(local):
                    out = values
                else:
                    out = np.empty((len(local), *values.shape[1:]), values.dtype) if out is None else out
                    out[at] = values
            yield batch, self._none() if out is None else move_to(_unpacked(out), device)

    def _computed(
        self,
        rows: np.ndarray,
        augmentation: Augmentation | None,
        keys: Sequence[tuple[int, ...]],
        split: bool = False,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield activations computed from images, each process its part; without `split` gathered from all."""
        alone = not (split or self.model.cut)  # the cut is at the input: there is only decoding to share
        batches = [np.arange(len(rows))[start:][: self.batch_size] for start in range(0, len(rows), self.batch_size)]
        local = batches if alone else [batch[shared.get_local_rows(len(batch))] for batch in batches]
        order = np.concatenate([*local, np.empty(0, np.int64)])
        keys, size = [keys[i] for i in order] if augmentation else [], max(map(len, local), default=1)
        images = iter(self._images(rows[order], augmentation, keys, size))
        for batch, own in zip(batches, local, strict=True):
            activation = self.model.trunk(next(images)[1]) if len(own) else self._none()
            yield rows[batch], activation if split or alone else shared.gather_rows(activation, len(batch))

    def _none(self) -> Tensor:
        """Return the activations of no image."""
        device, size = next(self.model.backbone.parameters()).device, self.model.backbone.preprocessing.input_size
        if not self.model.cut:
            return torch.empty(0, *size, dtype=torch.uint8, device=device)
        return self.model.round_activation(torch.empty(0, *self.model.backbone.shape(self.model.cut), device=device))

    def _images(
        self,
        rows: np.ndarray,
        augmentation: Augmentation | None,
        keys: Sequence[tuple[int, ...]],
        batch_size: int = _BATCH,
    ) -> ImageBatches:
        return ImageBatches(
            self.paths,
            self.model.backbone.preprocessing,
            batch_size=batch_size,
            order=rows,
            digests=self.digests,
            augmentation=augmentation,
            keys=keys,
            workers=self.workers,
            pin=next(self.model.backbone.parameters()).is_cuda,
        )

    def _fill(self, rows: np.ndarray, view: int, augmentation: Augmentation | None) -> None:
        """Compute and cache the missing activations of `rows` in one view; stop caching if the disk is full."""
        if view not in self._row_caches:
            row_cache = self._open_rows(self.model.cut, self.model.cut_precision, view, augmentation)
            self._row_caches[view] = row_cache, row_cache.locate(self.digests)
        row_cache, located = self._row_caches[view]
        missing = rows[shared.any_rank_mask(~located.found[rows])]
        if not len(missing):
            return
        missing = missing[np.sort(np.unique(self.digests[missing], return_index=True)[1])]
        # Processes of one machine share its disk: each writes its part.
        mine = missing[distributed.get_local_rank() :: distributed.get_local_world_size()]
        mine = mine[~located.found[mine]]
        started, problem = time.perf_counter(), ""
        sealed = started
        try:
            with (
                tqdm(total=len(mine), desc="frozen trunk", unit="image", disable=None, leave=False) as bar,
                row_cache.open_writer(len(missing)) as writer,
            ):
                computed = self._compute(mine, view, augmentation)
                for batch, values in copy_to_cpu((batch, self._pack(activation)) for batch, activation in computed):
                    writer.append(self.digests[batch], values.contiguous().numpy())
                    bar.update(len(batch))
                    if time.perf_counter() - sealed > _SEAL_SECONDS:
                        writer.commit()
                        sealed = time.perf_counter()
                    signals.raise_if_stop_requested()  # finished rows stay cached
        except CacheWriteError as error:
            problem = str(error)
        distributed.wait_for_all()
        self._row_caches[view] = row_cache, row_cache.locate(self.digests)
        if not problem and not self._row_caches[view][1].found[rows].all():
            problem = f"what was just written to {row_cache.folder} is not there"
        if distributed.any_rank(bool(problem)):
            log.warning("%s; frozen layers are recomputed in each epoch", problem or "a process cannot write its part")
            self.disk_cache = None
        self.cache.seconds += time.perf_counter() - started

    def _pack(self, activation: Tensor) -> Tensor:
        """Return activations rounded, and in the cached layout: channels last."""
        rounded = self.model.round_activation(activation)
        return rounded.permute(0, 2, 3, 1) if rounded.ndim == 4 else rounded

    def _compute(
        self, rows: np.ndarray, view: int, augmentation: Augmentation | None
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yield float32 activations at the cut, from cached ones of the nearest lower cut, else from images."""
        run, backbone = self.model.get_trunk(), self.model.backbone
        for cut in range(self.model.cut - 1, 0, -1):
            if not len(rows) or not backbone.can_cut(cut):
                continue
            located = self._open_rows(cut, "float32", view, augmentation).locate(self.digests)
            cached = rows[located.found[rows]]
            if not len(cached) or not run.can_continue(cut):
                continue
            rows = rows[~located.found[rows]]
            for start in range(0, len(cached), _BATCH):
                batch = cached[start : start + _BATCH]
                yield batch, run.continue_from(_unpacked(located.take(batch)), cut)
        keys = self._draw_keys(rows, np.full(len(rows), view)) if augmentation else []
        for index, images in self._images(rows, augmentation, keys):
            yield index.numpy(), run(images)

    def _open_rows(self, cut: int, precision: Precision, view: int, augmentation: Augmentation | None) -> RowCache:
        assert self.disk_cache is not None  # only rows of a disk cache are opened
        shape = self.model.backbone.shape(cut)
        shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
        about = describe_activation(self.model, cut, precision, view, augmentation)
        return self.disk_cache.open_rows("trunk", about, shape, about["precision"])


def _unpacked(values: np.ndarray) -> Tensor:
    """Invert :meth:`Feed._pack`, without a copy."""
    activation = torch.from_numpy(values)
    return activation.permute(0, 3, 1, 2) if activation.ndim == 4 else activation
