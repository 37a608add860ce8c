import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from transfer.adaptation.losses.pseudo_labels import PseudoLabels


def with_pseudo(batch, *, without=0):
    """Return `batch` with class probabilities of its target rows, but for the first `without`."""
    g = torch.Generator().manual_seed(7)
    q = torch.rand(batch.logits.shape, generator=g)
    q = q / q.sum(1, keepdim=True)
    known = batch.target.clone()
    known[batch.target.nonzero().flatten()[:without]] = False
    return replace(batch, pseudo=q * known[:, None])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("without", [0, 2])
def test_the_loss_against_the_loop(draw: Callable, hard: bool, without: int) -> None:
    batch, losses = with_pseudo(draw(1), without=without), []
    for q, logits, is_target in zip(batch.pseudo.tolist(), batch.logits.tolist(), batch.target.tolist(), strict=True):
        if not is_target or sum(q) == 0:
            continue
        total = sum(math.exp(value) for value in logits)
        log_p = [value - math.log(total) for value in logits]
        if hard:
            losses.append(-log_p[q.index(max(q))])
        else:
            losses.append(-sum(a * b for a, b in zip(q, log_p, strict=True)))
    assert len(losses) == 6 - without
    assert PseudoLabels(hard=hard)(batch).item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_source_rows_get_no_gradient(draw: Callable) -> None:
    batch = with_pseudo(draw())
    PseudoLabels()(replace(batch, pseudo=batch.pseudo + ~batch.target[:, None] * 0.25)).backward()
    source, target = batch.split(batch.logits.grad)
    assert not bool(source.any())
    assert bool(target.any(1).all())


def test_without_pseudo_labels_the_loss_is_zero(draw: Callable) -> None:
    batch = draw()
    loss = PseudoLabels()(replace(batch, pseudo=torch.zeros_like(batch.logits)))
    assert loss.item() == 0
    loss.backward()
    assert not bool(batch.logits.grad.any())
    with pytest.raises(TypeError, match=r"needs Batch\.pseudo"):
        PseudoLabels()(batch)


@pytest.mark.parametrize("hard", [False, True])
def test_saturated_logits_stay_finite(draw: Callable, hard: bool) -> None:
    batch = with_pseudo(draw())
    logits = (1e4 * batch.logits.detach()).requires_grad_()
    loss = PseudoLabels(hard=hard)(replace(batch, logits=logits))
    loss.backward()
    assert loss.isfinite()
    assert bool(logits.grad.isfinite().all())


def test_the_minimum_is_the_given_answer() -> None:
    from transfer.adaptation.losses.base import Batch

    target = torch.tensor([True, True, False])
    q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.0, 0.0, 0.0]])
    logits = torch.zeros(3, 3, requires_grad=True)
    for _ in range(2000):
        loss = PseudoLabels()(Batch(logits, logits, torch.full((3,), -1), target, pseudo=q))
        (slope,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= slope
    assert torch.allclose(logits.softmax(1)[:2], q[:2], atol=1e-3)
    assert torch.allclose(logits[2], torch.zeros(3))
