"""DELTA: feature maps stay near the pretrained ones, weighted by the use of each channel for the new task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfer.freeze import Phase
from transfer.heads.heads import Heads
from transfer.probes.linear import solve_linear_probe
from transfer.training.penalties.penalty import Penalty, PenaltyInputs, capture_outputs
from transfer.training.penalties.pretrained import PretrainedCopy


class Delta(Penalty):
    """``strength`` times the batch mean of ``sum_j W_j / 2 * ||map_j - pretrained_j||²``, summed over the outputs of
    the trained stages (Li et al. 2019, "DELTA: deep learning transfer using feature map with attention").

    ``map_j`` is channel j of such an output, ``pretrained_j`` that of the pretrained network for the same input; ``W``
    is the softmax over channels of :func:`channel_loss_increases`. As in the paper, the heads have their weight decay.
    `attention` holds ``W``, (channels,), by the path of the module with this output.
    """

    def __init__(self, pretrained: PretrainedCopy, attention: Mapping[str, Tensor], strength: float) -> None:
        self.pretrained, self.attention, self.strength = pretrained, attention, strength
        self.maps = tuple(attention)

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        with torch.no_grad(), capture_outputs(self.pretrained.model.backbone.network, self.maps) as goals:
            self.pretrained.features(step.activation)
        total = step.features.new_zeros((), dtype=torch.float32)
        for path, attention in self.attention.items():
            difference = step.maps[path].float() - goals[path].float()
            losses = (attention / 2 * _sum_per_channel(difference.square())).sum(1)
            total = total + self.pretrained.gather_batch(losses, len(step.features), step.sizes).mean()
        return self.strength * total


def channel_attention(pretrained: PretrainedCopy, heads: Heads, phase: Phase) -> dict[str, Tensor]:
    """Return the softmax of :func:`channel_loss_increases` for the output of each trained stage of `phase`."""
    paths = [
        stage.modules[-1]
        for stage, plan in zip(pretrained.model.backbone.stages, phase.stages, strict=True)
        if plan.train != "none"
    ]
    return {path: rise.softmax(0) for path, rise in channel_loss_increases(pretrained, heads, paths).items()}


def channel_loss_increases(pretrained: PretrainedCopy, heads: Heads, paths: Sequence[str]) -> dict[str, Tensor]:
    """Return for the outputs at `paths` the increase of the loss without each channel, (channels,).

    The loss is that of linear heads, solved on the pretrained features, over the training rows. The increase is the
    first-order estimate, minus gradient times output (Molchanov et al. 2017, without the absolute value). The paper
    recomputes the loss without each channel, which takes a pass over all rows for each of thousands of channels.
    """
    linear = Heads(
        list(heads.specs.values()), pretrained.model.backbone.width, compose="joint" if heads.joint else "dual"
    )
    linear = linear.to(heads.centre.device)
    rows, features = pretrained.pooled()
    solve_linear_probe(
        linear, (features, {name: label[rows] for name, label in pretrained.labels.items()}), fixed_l2={}
    )
    total: dict[str, Tensor] = {}
    for index, activation in pretrained.batches():
        labels = {name: label[index].to(features.device) for name, label in pretrained.labels.items()}
        with torch.enable_grad(), capture_outputs(pretrained.model.backbone.network, paths) as maps:
            inputs = activation.float().requires_grad_().clone()  # a copy, which layers may overwrite
            loss = linear.loss(linear(pretrained.features(inputs)), labels) * len(index) / len(rows)
            slopes = torch.autograd.grad(loss, [maps[path] for path in paths])
        for path, slope in zip(paths, slopes, strict=True):
            rise = -_sum_per_channel(slope * maps[path].detach()).sum(0)
            total[path] = total[path] + rise if path in total else rise
    return total


def _sum_per_channel(values: Tensor) -> Tensor:
    """Return the sums over each channel's positions, (N, channels), of `values` (N, channels, ...)."""
    return values.reshape(*values.shape[:2], -1).sum(2)
