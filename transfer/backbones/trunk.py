"""Trunk: the frozen stages of a backbone, ready for many images: compiled or folded, on all cores, reproducible."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import CompiledStages, StagesKey, choose_engine, compile_stages
from transfer.backbones.folding import MAX_FOLDING_ERROR, find_conv_norm_pairs
from transfer.runtime import distributed
from transfer.runtime.device import move_to

TRUNK_VERSION = 1  # bump when outputs change; part of the cache key
# Images per forward pass. On a CPU few enough for the activations to fit one core's cache.
CHUNK_IMAGES = {"cpu": 4}
DEFAULT_CHUNK_IMAGES = 64  # on any other device: as many as batches of the feed and of predictions have


class Trunk:
    """The first `cut` stages of `backbone` with its present weights, in eval mode, without gradients.

    They run on the engine that the backbone names, compiled for one image, or on torch where that fails. On torch
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
        Number of images that pass together on torch (default: the fastest for many; 1 answers soonest for one).
    store : bool
        Cache compiled stages on disk.
    """

    def __init__(self, backbone: Backbone, cut: int, chunk: int | None = None, *, store: bool = True) -> None:
        self.cut, self._source, self._store = cut, backbone, store
        self._device = next(backbone.parameters()).device
        self._engine = choose_engine(backbone.engine, backbone, self._device)
        self._chunk = chunk or CHUNK_IMAGES.get(self._device.type, DEFAULT_CHUNK_IMAGES)
        self._local = threading.local()
        self._compiled: dict[tuple[int, ...], CompiledStages | None] = {}  # by the shape of an image
        self._upper: dict[int, CompiledStages | None] = {}  # from a lower cut
        backbone.shape(cut)  # raises where the backbone cannot be cut
        if self._find_compiled(backbone.preprocessing.input_size) is None:
            self._backbone  # noqa: B018 folded now, with the weights as they are

    @cached_property
    def _backbone(self) -> Backbone:
        return _fold_batch_norms(self._source, self.cut)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the float32 activation at the cut, (N, ...), of uint8 `images` (N, 3, H, W)."""
        normalise = self._source.preprocessing.normalise
        if compiled := self._find_compiled(tuple(images.shape[1:])):
            return self._map(lambda image: compiled(normalise(image)), images, 1)
        return self._run_torch(lambda chunk: self._replica().trunk(_channels_last(normalise(chunk)), self.cut), images)

    def can_continue(self, start: int) -> bool:
        """Return whether :meth:`continue_from` changes no bit: an engine may fuse operations across a cut."""
        if start not in self._upper:
            self._upper[start] = self._compile_upper(start)
        return self._upper[start] is not None or self._find_compiled(self._source.preprocessing.input_size) is None

    def _compile_upper(self, start: int) -> CompiledStages | None:
        """Return the stages above the cut `start`, if on two images they give the bits of the whole."""
        if self._engine == "int8":  # which rounds at the cut
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
            return self._map(upper, activation, 1)
        return self._run_torch(lambda chunk: self._replica().trunk(_channels_last(chunk), self.cut, start), activation)

    def _find_compiled(self, shape: tuple[int, ...]) -> CompiledStages | None:
        """Return the stages compiled for images of `shape`, None if they run on torch."""
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(self.cut, 0, shape)
        return self._compiled[shape]

    def _compile(self, cut: int, start: int, shape: tuple[int, ...]) -> CompiledStages | None:
        if self._engine == "torch":
            return None
        key = StagesKey.of(self._source, self._engine, cut, start, shape)
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


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _fold_batch_norms(backbone: Backbone, cut: int) -> Backbone:
    """Return a copy of `backbone` with BatchNorm folded in its first `cut` stages, unless that changes the output."""
    device = next(backbone.parameters()).device
    shape = (CHUNK_IMAGES.get(device.type, 1), *backbone.preprocessing.input_size)
    with torch.inference_mode(False), torch.no_grad():
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        plain = copy.deepcopy(backbone).eval().to(memory_format=torch.channels_last)
        plain.can_cut(cut)  # tested now, so that the run below is the only one
        expected, pairs = find_conv_norm_pairs(plain.network, lambda: plain.trunk(example, cut))
        folded = copy.deepcopy(plain)
        try:
            for conv, norm in pairs:
                _fold(folded.network, conv, norm)
            error = (folded.trunk(example, cut) - expected).abs().max()
        except Exception:  # the network uses more of its norms than a forward pass
            return plain
        return folded if bool(error <= MAX_FOLDING_ERROR * expected.abs().max()) else plain


def _fold(network: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold a BatchNorm into the convolution before it, in place."""
    conv: Any = network.get_submodule(conv_name)
    norm: Any = network.get_submodule(norm_name)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight.data = conv.weight.contiguous(memory_format=torch.channels_last)
    parent, _, leaf = norm_name.rpartition(".")
    # timm's norms include their activation.
    setattr(network.get_submodule(parent), leaf, getattr(norm, "act", None) or nn.Identity())
