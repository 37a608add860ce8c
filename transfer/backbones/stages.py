"""The stages of any CNN in execution order, read off one forward pass.

A network is first split into *units*: its modules in the order of their first call, where a module that itself
runs through several resolutions (``features``, ``blocks``, ``stages``) is opened into its children. Units with at most
one weight matrix are *plain* (a convolution, a norm, a pooling), the others are blocks or groups of blocks. Then

- the plain units before the first block are the stem (each separate container of them is a stage);
- each group (a Sequential: ``layer1``, ``blocks.3``) is a stage; of blocks in a row without a group (SqueezeNet's
  fire modules, VGG's convolutions) all of one container and one resolution form a stage;
- plain convolutions between two groups (a transition, a downsampling) belong to the next group;
- plain convolutions after the last group are a head stage (``conv_head``), one for each container;
- a unit without a weight matrix (norm, activation, pooling) belongs to the unit before it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transfer.runtime.compiler import defer_compiler


@dataclass(frozen=True)
class Stage:
    """A part of the network that is frozen or trained as a whole."""

    name: str  # ``stem``, else the dotted path of its first block or convolution
    modules: tuple[str, ...]  # dotted paths of its modules in the network, in call order


@dataclass
class _Call:
    """The first call of a module."""

    order: int
    size_in: int = 0  # pixels along a side of the first input
    size_out: int = 0


@dataclass
class _Unit:
    """A module that belongs to one stage as a whole."""

    path: str
    module: nn.Module
    order: int  # of its first call
    size_out: int
    flat: bool  # a convolution in a container of plain units only, such as VGG's features
    weights: int = field(init=False)

    def __post_init__(self) -> None:
        self.weights = count_weight_layers(self.module)

    @property
    def block(self) -> bool:
        return self.weights > 1 or (self.flat and self.weights == 1)

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]

    def continues(self, last: "_Unit") -> bool:
        """Return whether this block belongs to the stage that `last` is in."""
        group = self.weights > 1 and isinstance(self.module, nn.Sequential)
        return not group and self.size_out == last.size_out and self.parent == last.parent


INITIALISERS = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_),
    *(Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_),
}
"""Methods that initialise a tensor in place; without content it is the same after them as before."""


class BuildOnMeta(TorchFunctionMode):
    """Context in which networks are built of meta tensors, without content.

    Under ``torch.device("meta")`` a builder that computes its layers' sizes with torch (torchvision's RegNet) fails.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call `function`, on the meta device if it creates parameters or buffers; initialise nothing.

        Without content there is nothing to initialise, and on the meta device that imports SymPy.
        """
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        if function in INITIALISERS and args[0].is_meta:
            return args[0]
        creates = function in (torch.empty, torch.zeros, torch.ones)
        return function(*args, **{**(kwargs or {}), **({"device": "meta"} if creates else {})})


@contextmanager
def switch_to_eval(network: nn.Module) -> Iterator[None]:
    """Put all modules of `network` in eval mode; restore the mode of each at the end."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def count_weight_layers(module: nn.Module) -> int:
    """Return how many modules inside `module` have a weight matrix or kernel."""
    return sum(any(p.ndim > 1 for p in m.parameters(recurse=False)) for m in module.modules())


def read_stages(network: nn.Module, input_size: tuple[int, int, int]) -> tuple[tuple[Stage, ...], int]:
    """Return the stages of `network`, from images (N, 3, H, W) to pooled features (N, width), and the width.

    `input_size` is (channels, height, width).

    Raises
    ------
    ValueError
        The output is not of the form (N, width).
    """
    calls, output = _trace(network, input_size)
    if output.ndim != 2:
        raise ValueError(f"expected pooled features (N, width), the network returns {tuple(output.shape)}")
    opened: set[str] = set()
    while True:
        units = sorted(_list_units(network, "", calls, opened, input_size[1]), key=lambda unit: unit.order)
        stages = _group_units(units)
        largest = max(units, key=lambda unit: unit.weights)
        if len(stages) > 2 or largest.weights < 3 or not any(True for _ in largest.module.children()):
            return tuple(stages), output.shape[1]
        opened.add(largest.path)  # one resolution throughout, as ConvMixer: each block is a stage


def _trace(network: nn.Module, input_size: tuple[int, int, int]) -> tuple[dict[str, _Call], Tensor]:
    """Run the network once, on the device that it is on; return the first call of each module, and the output.

    On a CPU one image takes 0.1 s, and no less for its shapes alone, on the meta device.
    """
    calls: dict[str, _Call] = {}

    def before(path: str, _: nn.Module, inputs: tuple) -> None:
        calls.setdefault(path, _Call(len(calls), size_in=_measure_side(inputs, min)))

    def after(path: str, _: nn.Module, inputs: tuple, output: object) -> None:
        calls[path].size_out = calls[path].size_out or _measure_side(output, max)

    parameter = next(network.parameters())
    images = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    with ExitStack() as hooks, switch_to_eval(network), torch.no_grad(), defer_compiler():
        for path, module in network.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(before, path)))
            hooks.enter_context(module.register_forward_hook(partial(after, path)))
        return calls, network(images)


def _measure_side(value: object, pick: Callable[..., int]) -> int:
    """Return the larger side of an image-like tensor in pixels, else 1; `pick` chooses among several tensors."""
    if isinstance(value, (tuple, list)):
        return pick((_measure_side(v, pick) for v in value), default=1)
    if not isinstance(value, Tensor) or value.ndim != 4:
        return 1
    _, a, b, c = value.shape
    return a if a == b != c else max(b, c)  # channels last or first


def _list_units(
    module: nn.Module, path: str, calls: dict[str, _Call], opened: set[str], image: int, flat: bool = False
) -> Iterator[_Unit]:
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        call = calls.get(child_path)
        if call is None:  # a ModuleList, which is never called itself
            yield from _list_units(child, child_path, calls, opened, image)
        elif child_path in opened or _spans_resolutions(child, call, image):
            plain = call.size_in == image and all(count_weight_layers(inner) < 2 for inner in child.children())
            yield from _list_units(child, child_path, calls, opened, image, flat=plain)
        else:
            yield _Unit(child_path, child, call.order, call.size_out, flat)


def _spans_resolutions(module: nn.Module, call: _Call, image: int) -> bool:
    """Return whether `module` holds several stages; a stem may shrink the image by 4, or more in one convolution."""
    ratio = call.size_in / max(call.size_out, 1)
    return call.size_out > 1 and count_weight_layers(module) > 1 and ratio >= (8 if call.size_in == image else 3)


def _group_units(units: list[_Unit]) -> list[Stage]:
    stages: list[list[_Unit]] = []
    waiting: list[_Unit] = []  # plain convolutions, and the units after them, that have no group yet
    for unit in units:
        if unit.block:
            if not stages and any(u.weights for u in waiting):
                stages += _split_by_container(waiting)
                waiting = []
                last = None
            else:
                last = next((u for u in reversed(stages[-1]) if u.block), None) if stages else None
            if last is None or not unit.continues(last):
                stages.append([])
            stages[-1] += [*waiting, unit]
            waiting = []
        elif unit.weights or waiting or not stages:
            waiting.append(unit)
        else:
            stages[-1].append(unit)
    return [_make_stage(part, first=i == 0) for i, part in enumerate([*stages, *_split_by_container(waiting)])]


def _split_by_container(units: list[_Unit]) -> list[list[_Unit]]:
    """Return plain units split into stages, one for each container of convolutions."""
    found: list[list[_Unit]] = []
    for unit in units:
        convolutions = [u for u in found[-1] if u.weights] if found else []
        if not found or (unit.weights and convolutions and convolutions[-1].parent != unit.parent):
            found.append([])
        found[-1].append(unit)
    return found


def _make_stage(units: list[_Unit], first: bool) -> Stage:
    named = next((u for u in units if u.block), None) or next((u for u in units if u.weights), units[0])
    return Stage("stem" if first else named.path, tuple(unit.path for unit in units))
