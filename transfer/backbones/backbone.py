"""Backbone: a network without its classifier, with its preprocessing and stages; it can be cut between stages."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from transfer.backbones import stages
from transfer.backbones.stages import Stage
from transfer.data.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from transfer.backbones.engines.activation_ranges import ActivationRanges


class ConvClassifier(nn.Module):
    """A 1 x 1 convolution and ReLU on the last feature map, then the mean over all positions, as SqueezeNet's.

    See Iandola et al. 2016, section 3.3.

    Parameters
    ----------
    linear : nn.Linear
        The convolution's weights, from channels to classes.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits (N, classes) of `maps` (N, channels, H, W)."""
        return self.linear(maps.permute(0, 2, 3, 1)).relu().mean((1, 2))


class Backbone(nn.Module):
    """A network from images to pooled features that can be cut between its stages.

    Parameters
    ----------
    name : str
        Full name: ``mobilenetv2_100``, ``resnet50.a1_in1k``, ``torchvision:squeezenet1_1``; several joined by ``+``.
    network : nn.Module
        Normalised images (N, 3, H, W) to pooled features (N, width), without the classifier.
    preprocessing : Preprocessing
        What the weights were trained with.
    weights : str
        Their source: ``file PATH``, ``store PATH``, ``bundle``, ``package NAME``, ``hub ADDRESS`` or ``random``; of
        several networks joined by ``; ``.
    original : nn.Module, optional
        The original classifier: linear on pooled features (N, width), or a :class:`ConvClassifier`. It is no
        submodule, so that it is neither trained nor saved.
    layout : (tuple of Stage, int), optional
        Stages and width; by default read off the network.

    Attributes
    ----------
    width : int
    stages : tuple of Stage
        In execution order. Every parameter and buffer of the network belongs to exactly one.
    dropped : tuple of str
        Names of the stages that were removed from the top.
    licence : str
        Of the pretrained weights; empty where it is not known.
    code_digest : str
        Digest of the code of a registered backbone, part of every cache key; empty for all others.
    output_kind : str
        What :meth:`forward` returns, in words.
    engine : str
        What runs the frozen stages on a CPU: ``torch``, ``onnxruntime``, ``openvino``, ``int8``, or ``auto``
        (:func:`transfer.backbones.engines.choose_engine`).
    calibration : ActivationRanges or None
        What ``int8`` needs (:func:`transfer.backbones.engines.calibrate`).
    """

    dropped: tuple[str, ...] = ()
    licence: str = ""
    code_digest: str = ""
    output_kind: str = "pooled features"
    engine: str = "torch"
    calibration: "ActivationRanges | None" = None

    def __init__(
        self,
        name: str,
        network: nn.Module,
        preprocessing: Preprocessing,
        weights: str = "random",
        original: nn.Module | None = None,
        layout: tuple[tuple[Stage, ...], int] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.preprocessing = preprocessing
        self.weights = weights
        self.stages, self.width = layout or stages.read_stages(network, preprocessing.input_size)
        self._original = (original,)  # in a tuple, so that nn.Module does not adopt it
        self._stage_of = _assign_stages(network, self.stages)
        # Shape of one image's activation by cut; None: the network cannot be cut there.
        self._shapes: dict[int, tuple[int, ...] | None] = {len(self.stages): (self.width,)}

    @property
    def original_classifier(self) -> nn.Module | None:
        """The original classifier, on the device of the network."""
        (original,) = self._original
        return original and original.to(next(self.network.parameters()))

    @property
    def classifier(self) -> nn.Module | None:
        """The original classifier, if it is linear on pooled features."""
        original = self.original_classifier
        return original if isinstance(original, nn.Linear) else None

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (N, width) of normalised `images` (N, 3, H, W)."""
        return self.network(images)

    def trunk(self, x: Tensor, cut: int, start: int = 0) -> Tensor:
        """Return the activation after the first `cut` stages: images at 0, pooled features at ``len(stages)``.

        `x` holds normalised images, or, with `start`, the activation after the first `start` stages.

        Raises
        ------
        ValueError
            The network cannot be cut there (see :meth:`can_cut`). So do :meth:`tail` and :meth:`shape`.
        """
        self._check(cut)
        self._check(start)
        return x if start == cut else self._between(x, start, cut)

    def tail(self, activation: Tensor, cut: int) -> Tensor:
        """Return pooled features (N, width) of an activation of :meth:`trunk`, equal to those of :meth:`forward`."""
        self._check(cut)
        return self._tail(activation, cut)

    def can_cut(self, cut: int) -> bool:
        """Return whether a single tensor passes from the first `cut` stages to the rest; a forward pass tests it."""
        if not 0 <= cut <= len(self.stages):
            raise ValueError(f"cut {cut} is not between 0 and the {len(self.stages)} stages of {self.name}")
        if cut == 0:
            return True
        if cut not in self._shapes:
            self._shapes[cut] = self._test_cut(cut)
        return self._shapes[cut] is not None

    def shape(self, cut: int) -> tuple[int, ...]:
        """Return the shape of one image's activation after the first `cut` stages."""
        self._check(cut)
        return (self._shapes[cut] if cut else None) or self.preprocessing.input_size

    def stage_of(self, name: str) -> int:
        """Return the index of the stage that a parameter, buffer or module of the network belongs to, by its name.

        Raises
        ------
        KeyError
            No such name, or a container of several stages.
        """
        return self._stage_of[name]

    @property
    def fingerprint(self) -> str:
        """sha256 over architecture, preprocessing, and all parameters and buffers; computed on each access."""
        architecture = re.sub(r" at 0x[0-9a-f]+", "", repr(self.network))
        tensors = chain(self.network.named_parameters(), self.network.named_buffers())
        return hash_tensors(tensors, repr((architecture, self.preprocessing.to_dict())))

    def _check(self, cut: int) -> None:
        if not self.can_cut(cut):
            raise ValueError(
                f"{self.name} cannot be cut before {self.stages[cut].name}: more than one tensor passes there"
            )

    def _last(self, cut: int) -> nn.Module:
        """Return the module whose output is the activation at `cut`."""
        return self.network.get_submodule(self.stages[cut - 1].modules[-1])

    def _between(self, x: Tensor, start: int, cut: int) -> Tensor:
        if cut == len(self.stages):
            return self._tail(x, start)
        return self._run_until(cut, lambda: self._tail(x, start))

    def _run_until(self, cut: int, run: Callable[[], Any]) -> Any:
        """Return the output of the first `cut` stages in the forward pass `run`, which ends there."""
        last = self._last(cut)
        with last.register_forward_hook(_stop_forward):
            try:
                run()
            except _StopForward as reached:
                if reached.module is not last:  # a lower cut
                    raise
                return reached.output
        raise RuntimeError(f"{self.name} never reached the end of stage {self.stages[cut - 1].name}")

    def _tail(self, activation: Tensor, cut: int) -> Tensor:
        if cut == 0:
            return self(activation)
        if cut == len(self.stages):
            return activation
        # The network runs as usual, but the trunk's modules return meta tensors (no content), the last one the
        # activation. An operation that uses any other output of the trunk fails on the meta tensor.
        empty = torch.empty_like(activation, device="meta")
        trunk = [self.network.get_submodule(path) for stage in self.stages[:cut] for path in stage.modules]
        with _replace_outputs(dict.fromkeys(trunk, empty) | {trunk[-1]: activation}):
            return self(empty)

    def _test_cut(self, cut: int) -> tuple[int, ...] | None:
        parameter = next(self.network.parameters())
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(1, *self.preprocessing.input_size, generator=generator).to(parameter)
        passed: list[tuple[Tensor, int]] = []
        try:
            with (
                stages.switch_to_eval(self.network),
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(parameter.device.type, enabled=False),
            ):
                with self._last(cut).register_forward_hook(lambda *call: passed.append((call[-1], call[-1]._version))):
                    whole = self(images)
                ((activation, version),) = passed  # one call only
                parts = self._tail(activation, cut)
                same = activation._version == version and torch.equal(whole, parts)
                return tuple(activation.shape[1:]) if same else None
        except Exception:  # whatever fails, the network is no chain at this cut
            return None


def hash_tensors(tensors: Iterable[tuple[str, Tensor]], prefix: str = "") -> str:
    """Return a sha256 over `prefix` and the names, shapes, types and bytes of `tensors`."""
    digest = hashlib.sha256(prefix.encode())
    for name, tensor in tensors:
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _StopForward(Exception):
    """Ends a forward pass early; carries the module that was reached and its output."""

    def __init__(self, module: nn.Module, output: Any) -> None:
        super().__init__()
        self.module, self.output = module, output


def _stop_forward(module: nn.Module, inputs: tuple, output: Any) -> None:
    raise _StopForward(module, output)


@contextmanager
def _replace_outputs(outputs: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Make each module return a given tensor instead of running."""
    for module, output in outputs.items():
        module.__dict__["forward"] = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for module in outputs:
            del module.__dict__["forward"]


def _assign_stages(network: nn.Module, stages: tuple[Stage, ...]) -> dict[str, int]:
    """Return the stage of every parameter, buffer and module that belongs to one."""
    of_unit = {path: index for index, stage in enumerate(stages) for path in stage.modules}
    spanning = {path[:i] for path in of_unit for i, letter in enumerate(path) if letter == "."} | {""}
    of_name: dict[str, int] = {}
    index = 0
    for path, module in network.named_modules():
        if path in of_unit:
            index = of_unit[path]
        # A module that is never called belongs to the stage of the module defined before it.
        if path not in spanning:
            parent = path.rpartition(".")[0]
            index = of_unit.get(path, of_name.get(parent, index))
            of_name[path] = index
        for name in chain(module._parameters, module._buffers):
            of_name[f"{path}.{name}" if path else name] = index
    return of_name
