"""DELTA: keep the channels' maps near the pretrained ones, those most that the new task has use for."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfer.freeze import Phase
from transfer.heads.heads import Heads
from transfer.probes.linear import solve_linear_probe
from transfer.training.penalties.penalty import Penalty, PenaltyInputs, capture_outputs
from transfer.training.penalties.pretrained import PretrainedCopy


class Delta(Penalty):
    """``strength`` times the mean over a batch of ``sum_j W_j / 2 * ||map_j - start_j||²``, summed over the outputs of
    the stages that learn (Li et al. 2019, "DELTA: deep learning transfer using feature map with attention").

    ``map_j`` is channel j of such an output, ``start_j`` what the pretrained network makes of it for the same input;
    ``W`` is the softmax over channels of :func:`rises`. The heads keep their weight decay, as the paper has it.

    Parameters
    ----------
    start : PretrainedCopy
    attention : mapping of str to Tensor, shape (channels,)
        ``W`` by the path of the module whose output it is for.
    """

    def __init__(self, start: PretrainedCopy, attention: Mapping[str, Tensor], strength: float) -> None:
        self.start, self.attention, self.strength = start, attention, strength
        self.maps = tuple(attention)

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        with torch.no_grad(), capture_outputs(self.start.model.backbone.network, self.maps) as wanted:
            self.start.features(step.activation)
        total = step.features.new_zeros((), dtype=torch.float32)
        for path, attention in self.attention.items():
            apart = step.maps[path].float() - wanted[path].float()
            each = (attention / 2 * _by_channel(apart.square())).sum(1)
            total = total + self.start.whole(each, len(step.features), step.sizes).mean()
        return self.strength * total


def attention(start: PretrainedCopy, heads: Heads, phase: Phase) -> dict[str, Tensor]:
    """Return the softmax of :func:`rises` for the output of each stage that learns in `phase`."""
    paths = [
        stage.modules[-1]
        for stage, here in zip(start.model.backbone.stages, phase.stages, strict=True)
        if here.train != "none"
    ]
    return {path: rise.softmax(0) for path, rise in rises(start, heads, paths).items()}


def rises(start: PretrainedCopy, heads: Heads, paths: Sequence[str]) -> dict[str, Tensor]:
    """Return for the outputs at `paths` how much the loss would rise without each channel, (channels,).

    The loss is that of linear heads, solved on the pretrained features, over the training rows. The rise is the first
    order's, minus gradient times output (Molchanov et al. 2017, without taking its size): the paper computes the loss
    anew without each channel, one run over all rows for each of thousands.
    """
    linear = Heads(list(heads.specs.values()), start.model.backbone.width, compose="joint" if heads.joint else "dual")
    linear = linear.to(heads.centre.device)
    rows, features = start.pooled()
    solve_linear_probe(linear, (features, {name: label[rows] for name, label in start.labels.items()}), fixed_l2={})
    total: dict[str, Tensor] = {}
    for index, activation in start.batches():
        wanted = {name: label[index].to(features.device) for name, label in start.labels.items()}
        with torch.enable_grad(), capture_outputs(start.model.backbone.network, paths) as maps:
            given = activation.float().requires_grad_().clone()  # a copy, which layers may overwrite
            loss = linear.loss(linear(start.features(given)), wanted) * len(index) / len(rows)
            slopes = torch.autograd.grad(loss, [maps[path] for path in paths])
        for path, slope in zip(paths, slopes, strict=True):
            rise = -_by_channel(slope * maps[path].detach()).sum(0)
            total[path] = total[path] + rise if path in total else rise
    return total


def _by_channel(values: Tensor) -> Tensor:
    """Return the sums over each channel's places, (N, channels), of `values` (N, channels, ...)."""
    return values.reshape(*values.shape[:2], -1).sum(2)
