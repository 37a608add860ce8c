"""Distances of channels' maps, and what a channel is worth, by loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import Heads
from transfer.probes import linear
from transfer.training.epoch import TrainingData
from transfer.training.penalties.delta import Delta, channel_attention, channel_loss_increases
from transfer.training.penalties.penalty import PenaltyInputs, capture_outputs
from transfer.training.penalties.pretrained import PretrainedCopy

PATHS = ("layer3", "layer4")


@pytest.fixture
def ready(taught: Callable[..., Any], data: TrainingData) -> tuple[Any, Any, PretrainedCopy, Any]:
    model, plan = taught("partial:2")
    start = PretrainedCopy(model, data.train, target_tensors(data.table, model))
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=9, workers=1)
    start.attach(model, feed)
    return model, plan, start, feed


def test_it_is_the_weighted_squared_distance_by_channel(ready: tuple, data: TrainingData) -> None:
    model, _, start, feed = ready
    (_, activation) = next(iter(feed.batches(data.train)))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    model.eval()

    def maps(one: Any) -> dict[str, torch.Tensor]:
        with torch.no_grad(), capture_outputs(one.backbone.network, PATHS) as seen:
            one.features(activation)
        return seen

    mine, wanted = maps(model), maps(start.model)
    weights = {path: torch.rand(mine[path].shape[1]) for path in PATHS}
    expected = 0.0
    for path in PATHS:
        for n in range(len(activation)):
            for channel in range(mine[path].shape[1]):
                apart = (mine[path][n, channel] - wanted[path][n, channel]).double()
                expected += 0.01 * float(weights[path][channel]) / 2 * float(apart.square().sum()) / len(activation)
    penalty = Delta(start, weights, 0.01)
    assert penalty.maps == PATHS
    with capture_outputs(model.backbone.network, PATHS) as seen:
        features = model.features(activation)
    loss = penalty(PenaltyInputs(model, activation, features, maps=seen))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert all(p.grad is None for p in start.model.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.backbone.network.parameters())


def test_the_penalty_is_zero_at_the_start(ready: tuple, data: TrainingData) -> None:
    model, plan, start, feed = ready
    model.eval()
    penalty = Delta(start, channel_attention(start, model.heads, plan.phases[0]), 0.01)
    (_, activation) = next(iter(feed.batches(data.train)))
    with capture_outputs(model.backbone.network, penalty.maps) as seen:
        features = model.features(activation)
    assert penalty(PenaltyInputs(model, activation, features, maps=seen)).item() == 0.0


def test_a_loss_increase_equals_the_finite_difference_of_a_channel(ready: tuple, data: TrainingData) -> None:
    """By a difference: the loss of solved heads with a channel scaled by 1 - e, less that without, over e."""
    model, _, start, feed = ready
    got = channel_loss_increases(start, model.heads, ["layer3"])["layer3"]
    rows, features = start.pooled()
    heads = Heads(list(model.heads.specs.values()), model.backbone.width)
    linear.solve_linear_probe(
        heads, (features, {name: label[rows] for name, label in start.labels.items()}), fixed_l2={}
    )
    heads.double()
    layer = start.model.backbone.network.layer3
    tail = start.model.double()

    def loss(channel: int, scale: float) -> float:
        def scaled(module: Any, given: Any, out: torch.Tensor) -> torch.Tensor:
            factor = torch.ones(out.shape[1], dtype=out.dtype)
            factor[channel] = scale
            return out * factor[:, None, None]

        hook = layer.register_forward_hook(scaled)
        outputs: list[dict[str, torch.Tensor]] = []
        with torch.no_grad():
            for _, activation in feed.batches(data.train):
                x = (tail.backbone.tail(activation.double(), model.cut) - heads.centre) / heads.spread
                outputs.append({name: heads.layers[f"head_{name}"](x) for name in heads.specs})
        hook.remove()
        total = 0.0
        for name in heads.specs:
            logits = torch.cat([some[name] for some in outputs])
            total += float(torch.nn.functional.cross_entropy(logits, start.labels[name][rows]))
        return total

    for channel in range(0, len(got), 16):
        slope = (loss(channel, 1 - 1e-4) - loss(channel, 1 + 1e-4)) / 2e-4
        assert float(got[channel]) == pytest.approx(slope, rel=0.02, abs=1e-5)


def test_attention_is_a_softmax_over_the_channels_of_each_trained_stage(ready: tuple) -> None:
    model, plan, start, _ = ready
    found = channel_attention(start, model.heads, plan.phases[0])
    assert len(found) == 2
    for path, weights in found.items():
        assert float(weights.sum()) == pytest.approx(1.0, rel=1e-5)
        assert torch.allclose(
            weights,
            channel_loss_increases(start, model.heads, [path])[path]
            .exp()
            .div_(channel_loss_increases(start, model.heads, [path])[path].exp().sum()),
            rtol=1e-5,
        )
        assert float(weights.max()) > float(weights.min())
