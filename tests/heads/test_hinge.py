"""Hinge losses, recomputed in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.heads.hinge import binary_hinge_losses, hinge_losses


def naive(scores: list[float], target: int) -> float:
    worst = -float("inf")
    for i, score in enumerate(scores):
        if i != target:
            worst = max(worst, score)
    return max(0.0, 1 + worst - scores[target])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), classes=st.integers(2, 7), spread=st.floats(0.1, 5))
def test_hinge_and_its_gradient_equal_their_definition(seed: int, classes: int, spread: float) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = (spread * torch.randn(6, classes, generator=g, dtype=torch.float64)).requires_grad_()
    target = torch.randint(classes, (6,), generator=g)
    losses = hinge_losses(scores, target)
    wanted = [naive(scores[i].tolist(), int(t)) for i, t in enumerate(target)]
    assert losses.tolist() == pytest.approx(wanted, rel=1e-9)  # in float64, as near the margin much cancels
    losses.sum().backward()
    assert scores.grad is not None
    for i, t in enumerate(target):
        expected = torch.zeros(classes, dtype=torch.float64)
        if losses[i] > 0:
            others = scores[i].detach().clone()
            others[t] = -float("inf")
            expected[int(others.argmax())], expected[t] = 1.0, -1.0
        assert torch.equal(scores.grad[i], expected)


def test_beyond_the_margin_the_gradient_is_zero() -> None:
    scores = torch.tensor([[3.0, 1.9, -4.0], [1.0, 0.5, 0.2]], requires_grad=True)
    losses = hinge_losses(scores, torch.tensor([0, 0]))
    assert losses.tolist() == pytest.approx([0.0, 0.5])
    losses.sum().backward()
    assert scores.grad is not None
    assert not scores.grad[0].any()
    assert scores.grad[1].any()


def test_binary() -> None:
    scores, target = torch.tensor([2.0, 0.3, -0.5, -2.0, 0.4]), torch.tensor([1, 1, 1, 0, 0])
    assert binary_hinge_losses(scores, target).tolist() == pytest.approx([0.0, 0.7, 1.5, 0.0, 1.4])


@pytest.mark.parametrize("compose", ["dual", "joint"])
def test_heads_with_hinge_loss(compose: str) -> None:
    """Each head's mean over known rows; pairs under a joint head; a shift of all scores changes nothing."""
    torch.manual_seed(0)
    specs = [HeadSpec("object", classes=tuple("abc")), HeadSpec("domain", classes=tuple("xy"), weight=0.5)]
    heads = Heads(specs, 4, compose=compose)
    objects, domains = torch.tensor([0, 2, -1, 1]), torch.tensor([1, 0, 1, 0])
    out = heads(torch.randn(4, 4))
    loss = heads.loss(out, {"object": objects, "domain": domains}, loss="hinge", smoothing=0.3)

    def mean(name: str, rows: list[int], labels: torch.Tensor) -> float:
        return sum(naive(out[name][i].flatten().tolist(), int(labels[i])) for i in rows) / len(rows)

    if compose == "dual":
        expected = mean("object", [0, 1, 3], objects) + 0.5 * mean("domain", [0, 1, 2, 3], domains)
    else:
        expected = mean("joint", [0, 1, 3], 3 * domains + objects) + 0.5 * mean("domain", [2], domains)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_binary_heads_use_hinge_loss_and_regression_does_not() -> None:
    heads = Heads([HeadSpec("glossy", "binary", ("no", "yes")), HeadSpec("age", "regression")], 3)
    out = {"glossy": torch.tensor([0.5, 2.0]), "age": torch.tensor([1.0, 3.0])}
    targets = {"glossy": torch.tensor([0, 1]), "age": torch.tensor([0.0, 1.0])}
    assert heads.loss(out, targets, loss="hinge").item() == pytest.approx(1.5 / 2 + (1 + 4) / 2)
