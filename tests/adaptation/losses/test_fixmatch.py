import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from transfer.adaptation.losses.fixmatch import FixMatch


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [v / sum(powers) for v in powers]


@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.95])
def test_the_loss_against_the_loop(threshold: float, draw: Callable) -> None:
    batch = draw(4)
    batch = replace(batch, logits=2 * batch.logits)
    total, rows, sure = 0.0, 0, 0
    for weak, strong, target in zip(batch.logits.tolist(), batch.strong.tolist(), batch.target.tolist(), strict=True):
        if target:
            q = softmax(weak)
            if max(q) >= threshold:
                total -= math.log(softmax(strong)[q.index(max(q))])
                sure += 1
            rows += 1
    assert rows == 6
    assert sure in {0.0: {6}, 0.7: range(2, 6), 0.95: range(1, 5)}[threshold]
    assert FixMatch(threshold)(batch).item() == pytest.approx(total / rows, rel=1e-5)


def test_gradients_are_finite(survives: Callable) -> None:
    survives(FixMatch())


def test_only_the_strong_view_of_confident_rows_gets_a_gradient(draw: Callable) -> None:
    batch = draw()
    logits = torch.zeros_like(batch.logits)
    sure = torch.zeros(13, dtype=torch.bool)
    sure[::3] = True
    logits[sure, 1] = 20.0
    batch = replace(batch, logits=logits.requires_grad_())
    FixMatch()(batch).backward()
    assert batch.logits.grad is None
    assert torch.equal(batch.strong.grad.any(1), sure & batch.target)
    assert bool((batch.strong.grad[sure & batch.target, 1] < 0).all())  # descent raises the class that was predicted


def test_rows_below_the_threshold_have_zero_loss(draw: Callable) -> None:
    batch = draw()
    loss = FixMatch()(replace(batch, logits=torch.zeros_like(batch.logits)))
    loss.backward()
    assert loss.item() == 0
    assert not bool(batch.strong.grad.any())


def test_the_error_names_the_missing_input(draw: Callable) -> None:
    assert FixMatch.needs_strong
    with pytest.raises(TypeError, match=r"needs Batch\.strong"):
        FixMatch()(replace(draw(), strong=None))
