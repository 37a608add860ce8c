"""Trunk: the frozen stages of a backbone made ready to run over many images: folded, on every core, reproducible."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfer.backbones.backbone import Backbone
from transfer.runtime import distributed

RULES = 1  # of how the numbers come about; belongs in the key of any cache of them
# Images that go through at a time. On a CPU few enough for the activations to stay in one core's cache.
CHUNK = {"cpu": 4}
# How far a folded network's output may be from the original's, relative to its largest: rounding reaches 1e-5.
_FOLDED_ALIKE = 1e-3


class Trunk:
    """The first `cut` stages of `backbone` as its weights stand now, in eval mode, without gradients.

    BatchNorm is folded into the convolution before it where a run proves that nothing but rounding changes. Images
    pass in chunks of a fixed size, on a CPU each chunk on one core and all cores side by side, so that what an image
    gives depends neither on the images beside it nor on how many cores there are.

    Parameters
    ----------
    backbone : Backbone
    cut : int
        From 1 to the number of stages; the backbone can be cut there.
    """

    def __init__(self, backbone: Backbone, cut: int) -> None:
        self.cut = cut
        self._backbone = _folded(backbone, cut)
        self._device = next(backbone.parameters()).device
        self._chunk = CHUNK.get(self._device.type, 128)
        self._local = threading.local()

    def __call__(self, images: Tensor) -> Tensor:
        """Return the float32 activation at the cut, (N, ...), of uint8 `images` (N, 3, H, W)."""
        normalise = self._backbone.preprocessing.normalise
        return self._map(lambda some: self._replica().trunk(_channels_last(normalise(some)), self.cut), images)

    def onward(self, activation: Tensor, start: int) -> Tensor:
        """Return the activation at the cut from the float32 `activation` (N, ...) at a lower cut, `start`."""
        return self._map(lambda some: self._replica().trunk(_channels_last(some), self.cut, start), activation)

    def _map(self, run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        def one(some: Tensor) -> Tensor:
            n = len(some)
            # Always the same number of images; the last one fills up.
            full = torch.cat([some, some[-1:].expand(self._chunk - n, *some.shape[1:])]) if n < self._chunk else some
            with torch.no_grad():
                return run(full.to(self._device, non_blocking=True))[:n].float()

        chunks = inputs.split(self._chunk)
        return torch.cat(list(_cores().map(one, chunks) if self._device.type == "cpu" else map(one, chunks)))

    def _replica(self) -> Backbone:
        """Return this thread's own modules, on weights that all share: a network that is cut is no matter for two."""
        if not hasattr(self._local, "backbone"):
            tensors = chain(self._backbone.parameters(), self._backbone.buffers())
            self._local.backbone = copy.deepcopy(self._backbone, {id(tensor): tensor for tensor in tensors})
        return self._local.backbone


@cache
def _cores() -> ThreadPoolExecutor:
    """Return a thread per core that is this process's, each of which computes on that core alone."""
    return ThreadPoolExecutor(distributed.count_cores_per_process(), "trunk", lambda: torch.set_num_threads(1))


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _folded(backbone: Backbone, cut: int) -> Backbone:
    """Return a copy of `backbone` whose first `cut` stages have BatchNorm folded, where that changes nothing."""
    device = next(backbone.parameters()).device
    shape = (CHUNK.get(device.type, 1), *backbone.preprocessing.input_size)
    with torch.inference_mode(False), torch.no_grad():
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        plain = copy.deepcopy(backbone).eval().to(memory_format=torch.channels_last)
        wanted, pairs = _observed(plain, example, cut)
        folded = copy.deepcopy(plain)
        try:
            for conv, norm in pairs:
                _fold(folded.network, conv, norm)
            apart = (folded.trunk(example, cut) - wanted).abs().max()
        except Exception:  # the network asks its norms for more than a forward pass
            return plain
        return folded if bool(apart <= _FOLDED_ALIKE * wanted.abs().max()) else plain


def _observed(backbone: Backbone, example: Tensor, cut: int) -> tuple[Tensor, list[tuple[str, str]]]:
    """Run the trunk once; return its output, and the (convolution, norm) names of which one feeds the other."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are held, so that no two have the same id
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}
    hooks = []
    backbone.cuttable(cut)  # looked into now, so that the run below is the only one

    def after(name: str, output: Tensor) -> None:
        made[id(output)] = (name, output)
        calls[name] = calls.get(name, 0) + 1

    def before(name: str, given: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        if id(given) in made:
            pairs.append((made[id(given)][0], name))

    for name, module in backbone.network.named_modules():
        if type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame":
            hooks.append(module.register_forward_hook(lambda _m, _in, out, name=name: after(name, out)))
        elif type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d":
            hooks.append(module.register_forward_pre_hook(lambda _m, given, name=name: before(name, given[0])))
    try:
        output = backbone.trunk(example, cut)
    finally:
        for hook in hooks:
            hook.remove()
    return output, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _fold(network: nn.Module, conv_name: str, norm_name: str) -> None:
    conv: Any = network.get_submodule(conv_name)
    norm: Any = network.get_submodule(norm_name)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight.data = conv.weight.contiguous(memory_format=torch.channels_last)
    parent, _, leaf = norm_name.rpartition(".")
    # timm's norms bring their activation along.
    setattr(network.get_submodule(parent), leaf, getattr(norm, "act", None) or nn.Identity())
