"""BatchNorm and the convolution before it: which pairs can be computed as one, and training them so on a CPU.

With frozen statistics, BatchNorm after a convolution is the same convolution with other weights (Jacob et al. 2018,
section 3.2): ``weight * scale`` and ``(bias - mean) * scale + shift``, where ``scale = gamma / sqrt(variance + eps)``.
They are computed in every step, so gradients reach all of these parameters. BatchNorm's own passes over the
activations, and the copy of them that it stores, are saved.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfer.backbones.backbone import Backbone
from transfer.backbones.stages import switch_to_eval

# Largest difference between the folded network's output and the original's, relative to the largest output. Rounding
# alone reaches 1e-5.
MAX_FOLDING_ERROR = 1e-3

LARGE_DEPTHWISE = 5  # side of the weights of a depthwise convolution from which their gradient is taken image by image

Pair = tuple[nn.Module, nn.Module]


def find_conv_norm_pairs(network: nn.Module, run: Callable[[], Tensor]) -> tuple[Tensor, list[tuple[str, str]]]:
    """Call `run`; return its output, and the names of each (convolution, BatchNorm) of `network` where one feeds the
    other and both are called once.
    """
    producers: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that no two have the same id
    pairs: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def after(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        producers[id(output)] = (name, output)
        calls[name] += 1

    def before(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[name] += 1
        if id(inputs[0]) in producers:
            pairs.append((producers[id(inputs[0])][0], name))

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame":
                hooks.enter_context(module.register_forward_hook(partial(after, name)))
            elif type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d":
                hooks.enter_context(module.register_forward_pre_hook(partial(before, name)))
        output = run()
    return output, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


class FoldedTraining:
    """The stages of a backbone above `cut`, for training steps on a CPU: norms folded, ReLU6 without a copy.

    Names, parameters and buffers are those of the network. Only its modules' forward passes are replaced, within
    :meth:`applied`. Nothing is folded if that changes the output on a test image by more than rounding.
    """

    def __init__(self, backbone: Backbone, cut: int) -> None:
        self._pairs: list[Pair] = []
        self._clips: list[nn.Module] = []
        # Modules of the trunk are called, too, but compute nothing.
        tail = {name: module for name, module in backbone.network.named_modules() if _is_above(backbone, name, cut)}
        parameter = next(backbone.parameters())
        example = torch.randn((1, *backbone.shape(cut)), generator=torch.Generator().manual_seed(0)).to(parameter)

        def run() -> Tensor:
            return backbone.tail(example.clone(memory_format=torch.preserve_format), cut)

        with (
            switch_to_eval(backbone.network),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(parameter.device.type, enabled=False),
        ):
            expected, names = find_conv_norm_pairs(backbone.network, run)
            pairs = [(tail[conv], tail[norm]) for conv, norm in names if {conv, norm} <= tail.keys()]
            self._pairs = [pair for pair in pairs if getattr(pair[0], "padding_mode", "") == "zeros"]
            self._clips = [module for module in tail.values() if type(module) is nn.ReLU6 and module.inplace]
            try:
                with self.applied():
                    error = (run() - expected).abs().max()
                same = bool(error <= MAX_FOLDING_ERROR * expected.abs().max())
            except Exception:  # the network uses more of its modules than a forward pass
                same = False
        if not same:
            self._pairs, self._clips = [], []

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the forward passes of convolutions, norms and ReLU6 within the block."""
        replaced: list[nn.Module] = []

        def replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
            module.__dict__["forward"] = forward
            replaced.append(module)

        try:
            for module in self._clips:
                replace(module, _InPlaceReLU6.apply)
            for conv, norm in self._pairs:
                if _can_fold(conv, norm):
                    replace(conv, partial(_run_folded, conv, norm))
                    replace(norm, partial(_activate, norm))
            yield
        finally:
            for module in replaced:
                del module.__dict__["forward"]


def _is_above(backbone: Backbone, name: str, cut: int) -> bool:
    try:
        return backbone.stage_of(name) >= cut
    except KeyError:  # a container of several stages
        return False


def _can_fold(conv: Any, norm: Any) -> bool:
    """Return whether folding changes and costs nothing now."""
    hooked = conv._forward_hooks or norm._forward_pre_hooks  # they would see the norm's output
    if norm.training or norm.running_mean is None or hooked or conv._forward_pre_hooks:
        return False
    # Where only the norm is trained, its gradient would need that of the convolution's weights.
    return bool(conv.weight.requires_grad or norm.weight is None or not norm.weight.requires_grad)


def _run_folded(conv: Any, norm: Any, x: Tensor) -> Tensor:
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = (0 if conv.bias is None else conv.bias) - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    weight, padding = conv.weight * scale[:, None, None, None], conv.padding
    if type(conv) is not nn.Conv2d:  # timm's Conv2dSame: padding as in TensorFlow
        from timm.layers.padding import pad_same

        x, padding = pad_same(x, weight.shape[-2:], conv.stride, conv.dilation), (0, 0)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.float32 if _is_slow_in_bfloat16(conv) else torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    with torch.autocast("cpu", enabled=False):
        return _BiasedConvolution.apply(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _is_slow_in_bfloat16(conv: Any) -> bool:
    """Return whether oneDNN has no fast backward pass in bfloat16: of depthwise convolutions that are not 3 x 3 at
    stride 1. Measured: up to 40 times as slow as float32.
    """
    return conv.groups > 1 and (max(conv.kernel_size) > 3 or max(conv.stride) > 1)


def _activate(norm: Any, x: Tensor) -> Tensor:
    """Return what a norm does besides normalising: timm's have an activation."""
    return norm.act(norm.drop(x)) if hasattr(norm, "act") else x


class _BiasedConvolution(torch.autograd.Function):
    """A convolution whose bias gradient is a sum by torch, several times as fast as oneDNN's."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, *geometry: Any) -> Tensor:
        context.save_for_backward(x, weight)
        context.geometry = geometry
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Any, ...]:
        (slope,), (x, weight) = slopes, context.saved_tensors
        stride, padding, dilation, groups = context.geometry
        of_x, of_weight, of_bias = context.needs_input_grad[:3]
        if isinstance(padding, str):
            edge = [d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[-2:], strict=True)]
            padding = edge if padding == "same" else [0, 0]
        arguments = slope, x, weight, None, stride, padding, dilation, False, [0, 0], groups
        large = weight.shape[1] == 1 and min(weight.shape[-2:]) >= LARGE_DEPTHWISE and weight.dtype == torch.float32
        by_image = bool(of_weight and large and len(weight) == groups and (*stride, *dilation) == (1, 1, 1, 1))
        needed = [of_x, of_weight and not by_image, False]
        x_slope, weight_slope, _ = torch.ops.aten.convolution_backward(*arguments, needed)
        if by_image:
            weight_slope = _find_depthwise_slope(slope, x, padding)
        return x_slope, weight_slope, slope.sum((0, 2, 3)) if of_bias else None, None, None, None, None


def _find_depthwise_slope(slope: Tensor, x: Tensor, padding: Any) -> Tensor:
    """Return the gradient of a depthwise convolution's weights: a convolution of each image with its own `slope`.

    For 5 x 5 weights that takes half the time of oneDNN's backward pass, for 3 x 3 more than twice.
    """
    pairs = zip(x.split(1), slope.split(1), strict=True)
    parts = [torch.conv2d(image, own.transpose(0, 1), None, 1, padding, 1, x.shape[1]) for image, own in pairs]
    return torch.stack(parts).sum(0).transpose(0, 1)


class _InPlaceReLU6(torch.autograd.Function):
    """ReLU6 in place, whose gradient is read off its output; torch's own stores a copy of the input."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.mark_dirty(x)
        context.save_for_backward(x.clamp_(0, 6))
        return x

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> Tensor:
        (slope,), (y,) = slopes, context.saved_tensors
        if y.ndim == 4 and y.is_contiguous(memory_format=torch.channels_last):  # mixed with another layout it is slow
            slope = slope.contiguous(memory_format=torch.channels_last)
        return torch.ops.aten.hardtanh_backward(slope, y, 0.0, 6.0)


def fold_batch_norms(backbone: Backbone, cut: int, images: int) -> Backbone:
    """Return a copy of `backbone` with BatchNorm folded in its first `cut` stages, unless that changes the output.

    It is tested on a number of random `images` that pass together.
    """
    device = next(backbone.parameters()).device
    shape = (images, *backbone.preprocessing.input_size)
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
