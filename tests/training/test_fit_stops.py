"""A loss or weights that are no numbers: training stops, and the last good weights are kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fits import QUICK
from model_states import changed_names, copy_state
from torch import Tensor

from transfer.config.train import LearnConfig
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit


def poisoned(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """Let the loss of the training step `step` (from 1) be `value`."""
    loss, count = Heads.loss, iter(range(1, 10**6))

    def broken(self: Heads, *args: Any, **kwargs: Any) -> Tensor:
        right = loss(self, *args, **kwargs)
        return right * value if self.training and next(count) == step else right

    monkeypatch.setattr(Heads, "loss", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "gradual:1"])
def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, policy: str, value: float
) -> None:
    model, plan = taught(policy)
    poisoned(monkeypatch, 5, value)  # three steps an epoch: the middle of the second
    after: list[dict[str, Tensor]] = []
    config = replace(QUICK, epochs=8, lr=0.02)
    result = fit(model, plan, data, config, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert len(result.epochs) == len(after) == 1
    assert f"the loss became {value} in epoch 2 (lr 0.02)" in result.stopped
    assert "the model has the weights of epoch 1; try a lower --lr" in result.stopped
    assert changed_names(copy_state(model), after[0]) == set()
    assert not result.moved
    assert not model.training


def test_no_number_in_the_first_epoch_keeps_the_start(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught("partial:1")
    start = copy_state(model)
    poisoned(monkeypatch, 2, float("nan"))
    result = fit(model, plan, data, QUICK, TrunkCache())
    assert "the model has its initial weights" in result.stopped
    assert result.epochs == []
    assert result.best == []
    assert changed_names(copy_state(model), start) <= {"heads.centre", "heads.spread"}


def finite(model: TransferModel) -> bool:
    return all(tensor.isfinite().all() for tensor in model.state_dict().values() if tensor.is_floating_point())


@pytest.mark.parametrize("val", [True, False])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
@pytest.mark.parametrize("batch_size", [8, 64])
def test_a_rate_far_too_high_never_leaves_weights_that_are_no_numbers(
    taught: Callable[..., Any], data: TrainingData, policy: str, batch_size: int, val: bool
) -> None:
    model, plan = taught(policy, backbone_lr=1.0)
    data = data if val else replace(data, val=data.val[:0])
    config = LearnConfig(
        optimizer="sgd", lr=1e30, epochs=3, batch_size=batch_size, workers=1, warmup=0.0, schedule="constant"
    )
    result = fit(model, plan, data, config, TrunkCache())
    assert finite(model)
    assert not result.moved


@pytest.mark.parametrize("val", [True, False])
@pytest.mark.parametrize("bad", [3, 6, 12])
def test_weights_that_break_in_an_epochs_last_step_are_not_kept(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, bad: int, val: bool
) -> None:
    """The loss before that step was a number, so only the weights themselves can tell."""
    loss, count = Heads.loss, iter(range(1, 10**6))

    def broken(self: Heads, *args: Any, **kwargs: Any) -> Tensor:
        right = loss(self, *args, **kwargs)
        if self.training and next(count) == bad:
            right = right + (0 * next(self.parameters()).sum()).sqrt()  # nought, with a gradient that is no number
        return right

    monkeypatch.setattr(Heads, "loss", broken)
    model, plan = taught()
    data = data if val else replace(data, val=data.val[:0])
    result = fit(model, plan, data, QUICK, TrunkCache())
    assert finite(model)
    assert "try a lower --lr" in result.stopped
    assert len(result.epochs) == bad // 3 - 1
    assert all(line["loss"] == line["loss"] for line in result.epochs)
