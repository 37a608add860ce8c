"""Batch normalisation with statistics over the rows of all processes.

``torch.nn.SyncBatchNorm`` accepts GPU tensors only. This is the same computation on any device. It applies to every
layer that calls :func:`torch.nn.functional.batch_norm`, so no module is replaced.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from transfer.runtime.distributed.group import get_world_size


class SyncBatchNormMode(TorchFunctionMode):
    """A context in which batch normalisation in training mode takes its statistics over all processes' rows."""

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `function`, with `batch_norm` replaced by the synchronised one."""
        if function is F.batch_norm and get_world_size() > 1:
            return synced_batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def synced_batch_norm(  # the signature of torch.nn.functional.batch_norm
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return :func:`torch.nn.functional.batch_norm` of the whole batch, for this process's rows `input`."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    output, mean, variance, count = _SyncedNormalisation.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp_min(1))
            for running, now in ((running_mean, mean), (running_var, unbiased)):
                running.mul_(1 - momentum).add_(now.to(running), alpha=momentum)
    return output


class _SyncedNormalisation(torch.autograd.Function):
    """Normalise rows by the mean and deviation of all processes' rows (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        n = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float32)
        if len(x):
            mean, variance = (statistic.float() for statistic in torch.batch_norm_update_stats(x, None, None, 0.0))
        else:
            mean = variance = n.new_zeros(x.shape[1])
        parts = [torch.empty(1 + 2 * len(mean), device=x.device) for _ in range(get_world_size())]
        dist.all_gather(parts, torch.cat([n, mean, variance]))
        counts, means, variances = torch.stack(parts).split([1, len(mean), len(mean)], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count  # Chan et al. 1979
        context.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        context.eps = eps
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rate, count = context.saved_tensors
        of_x, of_weight, of_bias = torch.zeros_like(x), torch.zeros_like(mean), torch.zeros_like(mean)
        if len(x):  # one pass, as if the local rows were the whole batch
            arguments = slopes[0], x, weight, None, None, mean, rate, True, context.eps, (True, True, True)
            of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(*arguments)
        local = torch.cat([of_bias, of_weight]).float()
        sums = local.clone()
        dist.all_reduce(sums)
        # Per channel the gradient is affine in x, and only the means in it depend on the other processes' rows.
        difference = local / max(x.numel() // x.shape[1], 1) - sums / count
        shift, slope = (difference * (rate if weight is None else rate * weight.float()).repeat(2)).chunk(2)
        scale = slope * rate
        of_x = of_x.addcmul(x, _expand_channels(scale, x).to(x.dtype))
        of_x = of_x.add_(_expand_channels(shift - scale * mean, x).to(x.dtype))
        return of_x, of_weight if weight is not None else None, of_bias if weight is not None else None, None


def _expand_channels(channels: Tensor, like: Tensor) -> Tensor:
    """Return values (C,) reshaped to broadcast over the channels of `like` (N, C, ...)."""
    return channels.view(1, -1, *[1] * (like.ndim - 2))
