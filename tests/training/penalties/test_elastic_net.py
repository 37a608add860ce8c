"""The penalty by hand, and what it makes of weights that are of no use."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.feature_cache import TrunkCache
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.penalties.elastic_net import ElasticNet
from transfer.training.penalties.penalty import PenaltyInputs

NONE = torch.zeros(0)


def value(model: Any, l1: float, l2: float) -> float:
    return ElasticNet(l1, l2)(PenaltyInputs(model, NONE, NONE)).item()


def test_it_is_the_sum_of_lasso_and_ridge_over_trained_weights(taught: Callable[..., Any]) -> None:
    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    absolute = squares = 0.0
    for name, p in model.named_parameters():
        if p.dim() >= 2 and (name.startswith("heads.") or ".layer4." in name):
            absolute += float(p.detach().double().abs().sum())
            squares += float(p.detach().double().square().sum())
    assert value(model, 0.3, 0.0) == pytest.approx(0.3 * absolute, rel=1e-4)
    assert value(model, 0.0, 0.5) == pytest.approx(0.25 * squares, rel=1e-4)
    assert value(model, 0.3, 0.5) == pytest.approx(value(model, 0.3, 0.0) + value(model, 0.0, 0.5), rel=1e-5)


def test_only_weights_get_a_gradient(taught: Callable[..., Any]) -> None:
    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    ElasticNet(0.3, 0.5)(PenaltyInputs(model, NONE, NONE)).backward()
    for p in model.parameters():
        if p.requires_grad and p.ndim > 1:
            assert p.grad is not None
            assert torch.allclose(p.grad, 0.3 * p.detach().sign() + 0.5 * p.detach(), atol=1e-6)
        else:
            assert p.grad is None


@pytest.mark.parametrize(
    ("l1", "l2", "sparse"), [(0.02, 0.0, True), (0.0, 0.02, False), (0.02, 0.02, True)], ids=["l1", "l2", "both"]
)
def test_l1_makes_weights_vanish_and_l2_does_not(
    taught: Callable[..., Any], data: TrainingData, l1: float, l2: float, sparse: bool
) -> None:
    model, plan = taught("linear_probe")
    config = LearnConfig(
        probe="trained", optimizer="sgd", momentum=0.0, lr=0.1, weight_decay=0.0, epochs=200, batch_size=0, workers=1
    )
    config = replace(config, schedule="constant", warmup=0.0, label_smoothing=0.0, clip=0.0)
    config = replace(config, regularise=RegulariseConfig(l1=l1, l2=l2))
    fit(model, plan, replace(data, val=data.val[:0]), config, TrunkCache())
    weights = torch.cat([p.detach().flatten() for p in model.heads.parameters() if p.ndim > 1]).abs()
    gone = float((weights <= 0.1 * 0.02 * 1.01).float().mean())  # within one step of zero
    assert float(weights.max()) > 0.02  # others are of use
    assert gone > 0.5 if sparse else gone < 0.3
