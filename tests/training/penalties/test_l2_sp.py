"""The distance from the start: nothing at it, and its slope by hand."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.feature_cache import TrunkCache
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.penalties.l2_sp import L2SP
from transfer.training.penalties.penalty import PenaltyInputs

NONE = torch.zeros(0)


def test_the_penalty_is_zero_at_first_then_half_the_squared_distance(taught: Callable[..., Any]) -> None:
    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    penalty = L2SP(copy.deepcopy(model.backbone), 0.8)
    assert penalty(PenaltyInputs(model, NONE, NONE)).item() == 0.0
    moved = {n: p for n, p in model.backbone.network.named_parameters() if p.requires_grad}
    assert any(p.ndim == 1 for p in moved.values())  # norms as well
    start = {name: p.detach().clone() for name, p in moved.items()}
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():  # frozen ones and heads too, which are none of its business
            p.add_(0.01 * torch.randn_like(p))
    loss = penalty(PenaltyInputs(model, NONE, NONE))
    distance = sum(float((p - start[name]).detach().double().square().sum()) for name, p in moved.items())
    assert loss.item() == pytest.approx(0.4 * distance, rel=1e-4)
    loss.backward()
    for name, p in moved.items():
        assert p.grad is not None
        assert torch.allclose(p.grad, 0.8 * (p - start[name]).detach(), atol=1e-6)
    assert all(p.grad is None for p in model.heads.parameters())


def test_trained_weights_stay_near_the_pretrained_ones(taught: Callable[..., Any], data: TrainingData) -> None:
    far = {}
    for strength in (0.0, 100.0):
        model, plan = taught("partial:1", backbone_lr=1.0)
        start = copy.deepcopy(model.backbone.network)
        config = LearnConfig(epochs=3, batch_size=12, workers=1, weight_decay=0.0, lr=1e-3)
        config = replace(config, regularise=RegulariseConfig(l2_sp=strength))
        result = fit(model, plan, replace(data, val=data.val[:0]), config, TrunkCache())
        assert result.moved == ()
        both = zip(model.backbone.network.parameters(), start.parameters(), strict=True)
        far[strength] = sum(float((a - b).detach().square().sum()) for a, b in both)
    assert 0 < far[100.0] < 0.5 * far[0.0]
