import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transfer.adaptation.losses.base import (
    AdaptationLoss,
    Batch,
    build_discriminator,
    ramp_up,
    reverse_gradient,
    softmax_entropy,
)


def test_split_gives_the_source_then_the_target() -> None:
    target = torch.tensor([True, False, False, True])
    batch = Batch(torch.zeros(4, 2), torch.zeros(4, 3), torch.full((4,), -1), target)
    source, goal = batch.split(torch.arange(4))
    assert source.tolist() == [1, 2]
    assert goal.tolist() == [0, 3]


def test_the_base_class_has_no_loss() -> None:
    class Nothing(AdaptationLoss):
        pass

    batch = Batch(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, dtype=torch.bool))
    with pytest.raises(TypeError, match="Nothing has no forward"):
        Nothing()(batch)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_reverse_changes_nothing_but_the_gradient(factor: float) -> None:
    x = torch.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
    y = reverse_gradient(x, factor)
    assert torch.equal(y, x)
    (y**3).sum().backward()
    assert torch.allclose(x.grad, -factor * 3 * x.detach() ** 2)


def test_ramp_is_the_hyperbolic_tangent_and_grows() -> None:
    values = [ramp_up(p / 20) for p in range(21)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values == pytest.approx([math.tanh(5 * p / 20) for p in range(21)])


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6), st.floats(-100, 100))
def test_entropy_against_the_sum_and_whatever_is_added_to_logits(logits: list[float], added: float) -> None:
    total = sum(math.exp(v) for v in logits)
    wanted = -sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in logits)
    row = torch.tensor([logits], dtype=torch.float64)
    assert softmax_entropy(row).item() == pytest.approx(wanted, abs=1e-9)
    assert softmax_entropy(row + added).item() == pytest.approx(wanted, abs=1e-9)
    assert -1e-9 <= wanted <= math.log(len(logits)) + 1e-9


def test_entropy_of_saturated_logits_has_a_gradient() -> None:
    logits = torch.tensor([[1e3, 0.0, -1e3], [0.0, 0.0, 0.0]], requires_grad=True)
    values = softmax_entropy(logits)
    assert values.tolist() == pytest.approx([0.0, math.log(3)])
    values.sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_a_discriminator_gives_one_logit_a_row() -> None:
    assert build_discriminator(7, hidden=4)(torch.zeros(3, 7)).shape == (3, 1)
