"""Batch statistics over the rows of all processes.

torch's own SyncBatchNorm refuses tensors that are not on a GPU. This is the same computation on any device, and for
any layer that calls :func:`torch.nn.functional.batch_norm`, so that no module need be replaced.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from transfer.parallel.group import world


class Synced(TorchFunctionMode):
    """A context in which batch normalisation that is in training takes its statistics over all processes' rows."""

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry out a function of torch, `batch_norm` in our way."""
        if function is F.batch_norm and world() > 1:
            return batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return what :func:`torch.nn.functional.batch_norm` gives for this process's rows of the whole batch `input`."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    output, mean, variance, count = _Normalised.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp_min(1))
            for running, now in ((running_mean, mean), (running_var, unbiased)):
                running.mul_(1 - momentum).add_(now.to(running), alpha=momentum)
    return output


class _Normalised(torch.autograd.Function):
    """Rows less the mean of all processes' rows, over their deviation (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        values = x.float()
        n = values.new_full((1,), x.numel() // x.shape[1])
        mean = values.sum(axes) / n.clamp_min(1)
        spread = (values - _across(mean, x)).square().sum(axes)
        parts = [torch.empty(1 + 2 * len(mean), device=x.device) for _ in range(world())]
        dist.all_gather(parts, torch.cat([n, mean, spread]))
        counts, means, spreads = torch.stack(parts).split([1, len(mean), len(mean)], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (spreads.sum(0) + (counts * (means - mean).square()).sum(0)) / count  # Chan et al. 1979
        context.save_for_backward(x, weight, mean, variance, count)
        context.eps = eps
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = context.saved_tensors
        axes = [axis for axis in range(x.ndim) if axis != 1]
        slope, rate = slopes[0].float(), (variance + context.eps).rsqrt()
        normal = (x.float() - _across(mean, x)) * _across(rate, x)
        of_bias, of_weight = slope.sum(axes), (slope * normal).sum(axes)
        sums = torch.cat([of_bias, of_weight])
        dist.all_reduce(sums)
        one, two = (sums / count).chunk(2)
        scale = rate if weight is None else rate * weight.float()
        of_x = (slope - _across(one, x) - normal * _across(two, x)) * _across(scale, x)
        needs = context.needs_input_grad
        return (
            of_x.to(x.dtype) if needs[0] else None,
            of_weight.to(weight.dtype) if needs[1] else None,
            of_bias.to(weight.dtype if weight is not None else of_bias.dtype) if needs[2] else None,
            None,
        )


def _across(channels: Tensor, like: Tensor) -> Tensor:
    """Return values (C,) so that they meet the channels of `like` (N, C, ...)."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))
