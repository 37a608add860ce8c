"""Trunk: the frozen stages of a backbone, ready for many images: compiled or folded, on all cores, reproducible."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import chain

import torch
from torch import Tensor

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import COMPILE, CompiledStages, StagesKey, choose_engine, compile_stages
from transfer.backbones.engines.chunks import CHUNK_IMAGES, count_chunk_images, to_channels_last
from transfer.backbones.folding import fold_batch_norms
from transfer.runtime import distributed
from transfer.runtime.device import move_to

TRUNK_VERSION = 1  # bump when outputs change; part of the cache key


class Trunk:
    """The first `cut` stages of `backbone` with its present weights, in eval mode, without gradients.

    They run on the engine that the backbone names, compiled for one image (torch.compile: for a chunk of them), or on
    torch where that fails. On torch
    BatchNorm is folded into the convolution before it, if a test run shows that only rounding changes. Images pass in
    chunks of a fixed size; on a CPU each chunk runs on one core. So an image's features depend neither on the other
    images of its batch nor on the number of cores.

    Parameters
    ----------
    backbone : Backbone
        Its weights must not change while the trunk is used.
    cut : int
        At least 1, and one where the backbone can be cut.
    chunk : int, optional
        Number of images that pass together on torch or by torch.compile (default: the fastest for many; 1 answers
        soonest for one).
    store : bool
        Cache compiled stages on disk.
    """

    def __init__(self, backbone: Backbone, cut: int, chunk: int | None = None, *, store: bool = True) -> None:
        self.cut, self._source, self._store = cut, backbone, store
        self._device = next(backbone.parameters()).device
        self._engine = choose_engine(backbone.engine, backbone, self._device)
        self._chunk = chunk or count_chunk_images(self._device.type)
        self._local = threading.local()
        self._compiled: dict[tuple[int, ...], CompiledStages | None] = {}  # by the shape of an image
        self._upper: dict[int, CompiledStages | None] = {}  # from a lower cut
        backbone.shape(cut)  # raises where the backbone cannot be cut
        if self._find_compiled(backbone.preprocessing.input_size) is None:
            self._backbone  # noqa: B018 folded now, with the weights as they are

    @cached_property
    def _backbone(self) -> Backbone:
        return fold_batch_norms(self._source, self.cut, CHUNK_IMAGES.get(self._device.type, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the float32 activation at the cut, (N, ...), of uint8 `images` (N, 3, H, W)."""
        normalise = self._source.preprocessing.normalise
        if compiled := self._find_compiled(tuple(images.shape[1:])):
            return self._map(lambda chunk: compiled(normalise(chunk)), images, compiled.images)
        return self._run_torch(lambda chunk: self._run_replica(normalise(chunk)), images)

    def can_continue(self, start: int) -> bool:
        """Return whether :meth:`continue_from` changes no bit: an engine may fuse operations across a cut."""
        if start not in self._upper:
            self._upper[start] = self._compile_upper(start)
        return self._upper[start] is not None or self._find_compiled(self._source.preprocessing.input_size) is None

    def _compile_upper(self, start: int) -> CompiledStages | None:
        """Return the stages above the cut `start`, if on two images they give the bits of the whole."""
        if self._engine in ("int8", COMPILE):  # the one rounds at the cut, the other fuses across it
            return None
        shape = self._source.preprocessing.input_size
        whole, lower = self._find_compiled(shape), self._compile(start, 0, shape)
        upper = self._compile(self.cut, start, self._source.shape(start)) if whole and lower else None
        if not (whole and lower and upper):
            return None
        images = torch.randn((2, 1, *shape), generator=torch.Generator().manual_seed(1))
        return upper if all(torch.equal(upper(lower(image)), whole(image)) for image in images) else None

    def continue_from(self, activation: Tensor, start: int) -> Tensor:
        """Return the activation at the cut from the float32 `activation` (N, ...) at a lower cut, `start`."""
        if self.can_continue(start) and (upper := self._upper[start]):
            return self._map(upper, activation, upper.images)
        return self._run_torch(lambda chunk: self._run_replica(chunk, start), activation)

    def _find_compiled(self, shape: tuple[int, ...]) -> CompiledStages | None:
        """Return the stages compiled for images of `shape`, None if they run on torch."""
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(self.cut, 0, shape)
        return self._compiled[shape]

    def _compile(self, cut: int, start: int, shape: tuple[int, ...]) -> CompiledStages | None:
        if self._engine == "torch":
            return None
        key = StagesKey.of(self._source, self._engine, cut, start, shape, self._chunk)
        return compile_stages(self._source, key, store=self._store)

    def _run_torch(self, run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        self._backbone  # noqa: B018 made by this thread, before others use it
        return self._map(run, inputs, self._chunk)

    def _map(self, run: Callable[[Tensor], Tensor], inputs: Tensor, size: int) -> Tensor:
        def run_chunk(chunk: Tensor) -> Tensor:
            n, chunk = len(chunk), move_to(chunk, self._device)
            if n < size:  # always the same number of images: the last one is repeated
                chunk = torch.cat([chunk, chunk[-1:].expand(size - n, *chunk.shape[1:])])
            with torch.no_grad():
                return run(chunk)[:n].float()

        chunks = inputs.split(size)
        mapped = _start_threads().map if self._device.type == "cpu" else map
        return torch.cat(list(mapped(run_chunk, chunks)))

    def _run_replica(self, x: Tensor, start: int = 0) -> Tensor:
        return self._replica().trunk(to_channels_last(x), self.cut, start)

    def _replica(self) -> Backbone:
        """Return this thread's copy of the modules, with shared weights: cutting a network changes its modules."""
        if not hasattr(self._local, "backbone"):
            tensors = chain(self._backbone.parameters(), self._backbone.buffers())
            self._local.backbone = copy.deepcopy(self._backbone, {id(tensor): tensor for tensor in tensors})
        return self._local.backbone


@cache
def _start_threads() -> ThreadPoolExecutor:
    """Return a pool with one thread for each core of this process, each computing on one core."""
    return ThreadPoolExecutor(distributed.count_cores_per_process(), "trunk", lambda: torch.set_num_threads(1))
