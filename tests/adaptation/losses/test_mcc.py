import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from transfer.adaptation.losses.base import Batch
from transfer.adaptation.losses.mcc import MCC

CLASSES = 4


def loop(rows: list[list[float]], temperature: float) -> float:
    """Return Jin et al.'s eq. 3 to 7, one after the other."""
    p = []
    for row in rows:
        powers = [math.exp(v / temperature) for v in row]
        p.append([v / sum(powers) for v in powers])
    sure = [1 + math.exp(sum(v * math.log(v) for v in row)) for row in p]
    weights = [len(p) * v / sum(sure) for v in sure]
    confusion = [
        [sum(w * row[a] * row[b] for w, row in zip(weights, p, strict=True)) for b in range(CLASSES)]
        for a in range(CLASSES)
    ]
    off = [confusion[a][b] / sum(confusion[a]) for a in range(CLASSES) for b in range(CLASSES) if a != b]
    return sum(off) / CLASSES


def answers(logits: torch.Tensor) -> Batch:
    """Return a batch with `logits` for its target, and one source row."""
    every = torch.cat([torch.zeros(1, logits.shape[1]), logits])
    target = torch.arange(len(every)) > 0
    return Batch(torch.zeros(len(every), 2), every, torch.full((len(every),), -1), target)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("seed", range(2))
def test_the_loss_against_the_loop(seed: int, temperature: float, draw: Callable) -> None:
    batch = draw(seed)
    wanted = loop(batch.logits[batch.target].tolist(), temperature)
    assert MCC(temperature)(batch).item() == pytest.approx(wanted, rel=1e-5)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(MCC())


def test_the_source_is_not_seen(draw: Callable) -> None:
    batch = draw()
    MCC()(batch).backward()
    assert batch.features.grad is None
    source, target = batch.split(batch.logits.grad)
    assert not bool(source.any())
    assert bool(target.any(1).all())


def test_no_gradient_flows_through_the_weights(draw: Callable) -> None:
    batch, by = draw(), 1e-3
    batch = replace(batch, logits=batch.logits.detach().double().requires_grad_())
    MCC()(batch).backward()
    rows = batch.logits[batch.target].detach()
    p = (rows / 2.5).softmax(1)
    weight = 1 + torch.exp((p * p.log()).sum(1))

    def value(moved: torch.Tensor) -> float:
        q = (moved / 2.5).softmax(1)
        share = torch.einsum("n,na,nb->ab", weight, q, q)
        share = share / share.sum(1, keepdim=True)
        return float(share.sum() - share.trace()) / CLASSES

    for i, k in ((0, 0), (2, 3)):
        step = torch.zeros_like(rows)
        step[i, k] = by
        slope = (value(rows + step) - value(rows - step)) / (2 * by)
        assert batch.logits.grad[batch.target][i, k].item() == pytest.approx(slope, rel=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0, 1000))
def test_bounds_and_the_order_of_classes(seed: int, rows: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, CLASSES, generator=g)
    value = MCC()(answers(logits)).item()
    assert -1e-6 <= value <= 1 - 1 / CLASSES + 1e-6  # a tie of all classes, or a single row
    order = torch.randperm(CLASSES, generator=g)
    assert MCC()(answers(logits[:, order])).item() == pytest.approx(value, abs=1e-5)


def test_confident_and_diverse_predictions_have_the_smallest_loss() -> None:
    sure = MCC()(answers(1e3 * torch.eye(CLASSES).repeat(2, 1))).item()
    absent = MCC()(answers(1e3 * torch.eye(CLASSES)[:2])).item()
    tied = MCC()(answers(torch.zeros(6, CLASSES))).item()
    assert (sure, absent) == (0.0, 0.0)
    assert tied == pytest.approx(1 - 1 / CLASSES)


def test_the_known_answer_to_a_shift(learn_shifted: Callable) -> None:
    assert learn_shifted(None)[0] < 0.6
    accuracy, along = learn_shifted(lambda width, classes, _: MCC())
    assert accuracy > 0.97
    assert along < 0.2


def test_the_known_answer_to_a_turn() -> None:
    """Five blobs on a circle, the target's turned by 30 of the 36 degrees to the boundary: the blobs stay whole."""

    def learn(weight: float) -> float:
        g = torch.Generator().manual_seed(0)
        classes = torch.arange(150) % 5
        sides = []
        for degrees in (0.0, 30.0):
            angle = 2 * math.pi * classes / 5 + math.radians(degrees)
            centres = 3 * torch.stack([angle.cos(), angle.sin()], 1)
            sides.append(centres + 0.25 * torch.randn(150, 2, generator=g))
        torch.manual_seed(0)
        body, head = nn.Sequential(nn.Linear(2, 32), nn.ReLU()), nn.Linear(32, 5)
        optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 0.01)
        x, target = torch.cat(sides), torch.arange(300) >= 150
        labels = torch.cat([classes, torch.full_like(classes, -1)])
        for step in range(250):
            features = body(x)
            logits = head(features)
            loss = F.cross_entropy(logits[:150], classes)
            loss = loss + weight * MCC()(Batch(features, logits, labels, target, step / 250))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float((head(body(sides[1])).argmax(1) == classes).float().mean())

    assert learn(0.0) < 0.92
    assert learn(1.0) > 0.98
