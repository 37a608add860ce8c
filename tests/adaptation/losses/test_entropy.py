import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from transfer.adaptation.losses.base import Batch, ramp_up
from transfer.adaptation.losses.entropy import InformationMaximisation, MinimaxEntropy

CLASSES = 4


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(v - max(row)) for v in row]
    return [v / sum(powers) for v in powers]


def softmax_entropy(p: list[float]) -> float:
    return -sum(v * math.log(v) for v in p if v > 0)


def answers(logits: torch.Tensor) -> Batch:
    """Return a batch with `logits` for its target, and one source row."""
    every = torch.cat([torch.zeros(1, logits.shape[1]), logits])
    target = torch.arange(len(every)) > 0
    return Batch(torch.zeros(len(every), 2), every, torch.full((len(every),), -1), target)


@pytest.mark.parametrize("seed", range(3))
def test_information_against_the_loop(seed: int, draw: Callable) -> None:
    batch = draw(seed)
    p = [softmax(row) for row in batch.logits[batch.target].tolist()]
    mean = [sum(row[k] for row in p) / len(p) for k in range(CLASSES)]
    wanted = sum(softmax_entropy(row) for row in p) / len(p) - softmax_entropy(mean)
    assert InformationMaximisation()(batch).item() == pytest.approx(wanted, rel=1e-4)


def test_gradients_of_information_are_finite(survives: Callable) -> None:
    survives(InformationMaximisation())


def test_the_source_is_not_seen(draw: Callable) -> None:
    batch = draw()
    InformationMaximisation()(batch).backward()
    source, target = batch.split(batch.logits.grad)
    assert not bool(source.any())
    assert bool(target.any(1).all())


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 10), st.floats(0, 1000))
def test_information_lies_between_minus_log_classes_and_nothing(seed: int, rows: int, scale: float) -> None:
    logits = scale * torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed))
    value = InformationMaximisation()(answers(logits)).item()
    assert -math.log(min(rows, CLASSES)) - 1e-5 <= value <= 1e-5


def test_the_least_and_the_most_information() -> None:
    diverse = InformationMaximisation()(answers(1e3 * torch.eye(CLASSES).repeat(3, 1)))
    alike = InformationMaximisation()(answers(torch.tensor([[0.3, -1.0, 2.0, 0.0]]).repeat(5, 1)))
    assert diverse.item() == pytest.approx(-math.log(CLASSES), rel=1e-5)
    assert alike.item() == pytest.approx(0, abs=1e-6)


def test_the_known_answer_to_a_shift(learn_shifted: Callable) -> None:
    accuracy, along = learn_shifted(lambda width, classes, _: InformationMaximisation())
    assert accuracy > 0.97
    assert along < 0.2


def classifier() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, CLASSES)


def test_minimax_entropy_against_the_loop(draw: Callable) -> None:
    batch, own = draw(), classifier()
    rows = [
        x
        for x, target, label in zip(batch.features, batch.target.tolist(), batch.labels.tolist(), strict=True)
        if target and label < 0
    ]
    assert len(rows) == 5
    values = [softmax_entropy(softmax(own(x).tolist())) for x in rows]
    assert MinimaxEntropy(own)(batch).item() == pytest.approx(-sum(values) / len(values), rel=1e-5)


def test_gradients_of_minimax_entropy_are_finite(survives: Callable) -> None:
    survives(MinimaxEntropy(classifier()))


def test_the_classifier_raises_entropy_that_features_lower(draw: Callable) -> None:
    batch, own = draw(progress=0.1), classifier()
    MinimaxEntropy(own)(batch).backward()
    unlabelled = batch.target & (batch.labels < 0)
    assert not bool(batch.features.grad[~unlabelled].any())

    def mean_entropy(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        log_p = (features[unlabelled] @ weight.T + bias).log_softmax(1)
        return -(log_p.exp() * log_p).sum(1).mean()

    inputs = (batch.features, own.weight, own.bias)
    of_features, *of_classifier = torch.autograd.grad(mean_entropy(*inputs), inputs)
    assert torch.allclose(batch.features.grad, ramp_up(0.1) * of_features, atol=1e-6)  # descent lowers it
    for parameter, slope in zip((own.weight, own.bias), of_classifier, strict=True):
        assert torch.allclose(parameter.grad, -slope, atol=1e-6)  # descent raises it


def test_the_classifier_is_not_registered_as_a_submodule() -> None:
    objective = MinimaxEntropy(classifier())
    assert not list(objective.parameters())
    assert not objective.state_dict()


def test_without_unlabelled_rows_the_loss_is_zero(draw: Callable) -> None:
    batch = draw()
    loss = MinimaxEntropy(classifier())(replace(batch, labels=torch.zeros_like(batch.labels)))
    loss.backward()
    assert loss.item() == 0
    assert not bool(batch.features.grad.any())
