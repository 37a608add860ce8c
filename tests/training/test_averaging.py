"""Averages of weights against plain loops, statistics that go with them, and cycles."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_states import changed_names, copy_state
from torch import Tensor

from transfer.config.train import LearnConfig
from transfer.errors import TransferError
from transfer.evaluation.predictions import predict_rows, target_tensors
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.training import averaging
from transfer.training.averaging import WeightAverage, choose_share, cycle_bounds, interpolate_weights
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit

QUICK = LearnConfig(probe="trained", batch_size=8, workers=1, lr=0.01, patience=0, warmup=0.0, device="cpu")


def feed_of(model: TransferModel, data: TrainingData) -> Any:
    return TrunkCache().feed(model, data.table.paths, data.digests, batch_size=8, workers=1)


def spied(monkeypatch: pytest.MonkeyPatch, name: str) -> list[dict[str, Tensor]]:
    """Return a list that gets the model's state whenever the average's method `name` is about to be called."""
    seen: list[dict[str, Tensor]] = []
    method = getattr(WeightAverage, name)

    def told(self: WeightAverage, *args: Any) -> Any:
        seen.append(copy_state(self.model))
        return method(self, *args)

    monkeypatch.setattr(WeightAverage, name, told)
    return seen


def without_validation(data: TrainingData) -> TrainingData:
    return dataclasses.replace(data, val=data.val[:0])


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "norm_only"])
@pytest.mark.parametrize("decay", [0.5, 0.995])
def test_ema_is_a_loop_over_the_steps(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, policy: str, decay: float
) -> None:
    """Weights and statistics that learn; the rest stays as it was, to the bit."""
    model, plan = taught(policy)
    start = copy_state(model)
    steps = spied(monkeypatch, "after_step")
    config = dataclasses.replace(QUICK, epochs=3, average="ema", ema_decay=decay)
    result = fit(model, plan, without_validation(data), config, TrunkCache())
    assert len(steps) == 9
    assert not result.moved
    moved = changed_names(start, steps[-1]) - {"heads.centre", "heads.spread"}
    for name in moved:
        if not steps[0][name].is_floating_point():  # how many batches there were: no mean of that
            assert model.state_dict()[name] == steps[-1][name]
            continue
        mean = start[name].double()
        for t, step in enumerate(steps, 1):
            d = min(decay, (1 + t) / (10 + t))
            mean = d * mean + (1 - d) * step[name].double()
        torch.testing.assert_close(model.state_dict()[name].double(), mean, rtol=1e-4, atol=1e-6)
    assert changed_names(start, copy_state(model)) - {"heads.centre", "heads.spread"} == moved


def test_training_goes_on_from_its_own_weights(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An average is looked at and kept; it never reaches the next step."""
    steps = spied(monkeypatch, "after_step")
    runs = []
    for average in ("none", "ema", "swa"):
        model, plan = taught("partial:1")
        fit(model, plan, data, dataclasses.replace(QUICK, epochs=4, average=average), TrunkCache())
        runs.append(list(steps))
        steps.clear()
    for other in runs[1:]:
        assert [changed_names(a, b) for a, b in zip(runs[0], other, strict=True)] == [set()] * len(runs[0])


def test_validation_sees_the_average(taught: Callable[..., Any], data: TrainingData) -> None:
    lines = {}
    for average in ("none", "ema"):
        model, plan = taught()
        result = fit(model, plan, data, dataclasses.replace(QUICK, epochs=2, average=average), TrunkCache())
        lines[average] = result.epochs
    for plain, ema in zip(lines["none"], lines["ema"], strict=True):
        assert plain["loss"] == ema["loss"]
        assert plain["val_loss"] != ema["val_loss"]


def test_swa_is_the_mean_of_the_last_quarters_ends_with_statistics_of_its_own(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = taught("partial:1")
    ends = spied(monkeypatch, "after_epoch")
    config = dataclasses.replace(QUICK, epochs=8, average="swa", schedule="constant")
    result = fit(model, plan, without_validation(data), config, TrunkCache())
    assert not result.moved
    assert len(ends) == 8
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learned
    for name in learned:
        mean = (ends[6][name].double() + ends[7][name].double()) / 2
        torch.testing.assert_close(model.state_dict()[name].double(), mean, rtol=1e-5, atol=1e-7)
    # BatchNorm's first layer in the tail, by hand: the mean over batches of what comes in has these statistics.
    norm = model.backbone.network.layer4[0].bn1
    inputs: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    with torch.no_grad():
        for _, activation in feed_of(model, data).batches(data.train):
            model.features(activation)
    hook.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


def test_before_the_last_quarter_swa_is_the_plain_weights(taught: Callable[..., Any], data: TrainingData) -> None:
    lines = {}
    for average in ("none", "swa"):
        model, plan = taught()
        result = fit(model, plan, data, dataclasses.replace(QUICK, epochs=8, average=average), TrunkCache())
        lines[average] = [line["val_loss"] for line in result.epochs]
    assert lines["none"][:6] == lines["swa"][:6]
    assert lines["none"][7] != lines["swa"][7]


def test_measured_statistics_leave_frozen_layers_alone(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    before = copy_state(model)
    averaging.measure_statistics(model, feed_of(model, data), data.train)
    changed = changed_names(before, copy_state(model))
    assert changed
    assert all(
        (name.startswith("backbone.network.layer4.") and "running" in name) or "num_b" in name for name in changed
    )
    assert set(averaging.trained_tensors(model)) > changed


def test_statistics_of_one_image_are_refused(taught: Callable[..., Any], data: TrainingData) -> None:
    """This network normalises after pooling."""
    model, plan = taught("full", "mobilenetv4_conv_small", statistics="learning")
    model.freeze(plan.phases[0])
    with pytest.raises(TransferError, match="one image has no variance"):
        averaging.measure_statistics(model, feed_of(model, data), data.train[:1])


@given(epochs=st.integers(1, 40), cycles=st.integers(1, 45))
def test_cycles_share_the_epochs_out(epochs: int, cycles: int) -> None:
    spans = [cycle_bounds(epoch, epochs, cycles) for epoch in range(1, epochs + 1)]
    different = list(dict.fromkeys(spans))
    assert len(different) == min(cycles, epochs)
    assert different[0][0] == 0
    assert different[-1][1] == epochs
    assert all(a[1] == b[0] for a, b in itertools.pairwise(different))
    lengths = [end - start for start, end in different]
    assert max(lengths) - min(lengths) <= 1
    assert all(start < epoch <= end for epoch, (start, end) in enumerate(spans, 1))


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_an_average_goes_on_where_it_was(taught: Callable[..., Any], average: Any) -> None:
    model, plan = taught("partial:1")
    model.freeze(plan.phases[0])
    config = dataclasses.replace(QUICK, average=average)
    one = WeightAverage(model, config, 4)
    one.after_step()
    one.after_epoch(4)
    kept = {"count": one.count, "mean": [tensor.clone() for tensor in one.state()["mean"]]}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    other = WeightAverage(model, config, 4)
    other.load(kept)
    for some in (one, other):
        some.after_step()
        some.after_epoch(4)
    assert one.count == other.count == 2
    assert all(map(torch.equal, one.mean, other.mean))


def test_the_rate_starts_over_in_each_cycle(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGDR: half a cosine wave from the full rate to none, as often as there are cycles."""
    from transfer.training import optimizers

    rates: list[float] = []
    set_rates = optimizers.set_rates
    monkeypatch.setattr(optimizers, "set_rates", lambda o, p, lr: (rates.append(lr), set_rates(o, p, lr)))
    model, plan = taught()
    fit(model, plan, data, dataclasses.replace(QUICK, epochs=6, cycles=3), TrunkCache())
    one = [0.01 * (1 + math.cos(math.pi * t / 6)) / 2 for t in range(1, 7)]  # two epochs of three steps
    np.testing.assert_allclose(rates, one * 3, atol=1e-12)


@pytest.mark.parametrize("average", ["none", "ema"])
def test_snapshots_are_what_each_cycle_ended_with(taught: Callable[..., Any], data: TrainingData, average: Any) -> None:
    model, plan = taught("partial:1")
    after: list[dict[str, Tensor]] = []
    config = dataclasses.replace(QUICK, epochs=6, cycles=3, average=average, patience=1)
    result = fit(model, plan, data, config, TrunkCache(), on_epoch=lambda _: after.append(copy_state(model)))
    assert len(after) == 6  # patience would end it where a rate goes up again
    assert len(result.snapshots) == 3
    for snapshot, epoch in zip(result.snapshots, (1, 3, 5), strict=True):
        assert all(torch.equal(tensor, after[epoch][name]) for name, tensor in snapshot.items())


def test_only_the_last_phase_leaves_snapshots(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("lp_ft:1")
    result = fit(model, plan, data, dataclasses.replace(QUICK, epochs=8, cycles=2), TrunkCache())
    assert len(result.snapshots) == 2
    assert any(not torch.equal(t, result.snapshots[1][n]) for n, t in result.snapshots[0].items() if "layer4" in n)


def test_wise_ft_takes_the_share_with_the_best_validation_score(taught: Callable[..., Any], data: TrainingData) -> None:
    """The probe, the tuned weights and nine between them, each validated by hand."""
    config = dataclasses.replace(QUICK, probe="solved", epochs=3, lr=0.05)
    ends = []
    for last in (1, 2):  # the probe alone, then with the epochs of fine-tuning
        model, plan = taught("lp_ft:1")
        plan = dataclasses.replace(plan, phases=plan.phases[:last])
        fit(model, plan, data, config, TrunkCache())
        ends.append((copy_state(model), model))
    (before, _), (after, tuned) = ends
    feed = feed_of(tuned, data)
    labels = target_tensors(data.table, tuned)
    scores = {}
    for share in [i / 10 for i in range(11)]:
        mixed = {
            name: (1 - share) * before[name] + share * after[name] if after[name].is_floating_point() else after[name]
            for name in after
        }
        tuned.load_state_dict(mixed)
        predictions, loss = predict_rows(tuned, feed, data.val, labels)
        right = [
            np.mean(predictions[head].argmax(1) == data.table.targets[head].values[data.val]) for head in predictions
        ]
        scores[share] = (np.mean(right), -loss)
    best = max(scores.values())

    model, plan = taught("lp_ft:1")
    result = fit(model, plan, data, dataclasses.replace(config, average="wise_ft"), TrunkCache())
    (chosen,) = result.interpolated.values()
    assert scores[chosen["share"]] == pytest.approx(best, abs=1e-5)
    share = chosen["share"]
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (1 - share) * before[name] + share * after[name])
    assert not result.moved


def test_wise_ft_without_validation_is_half_way(taught: Callable[..., Any], data: TrainingData) -> None:
    model, plan = taught("lp_ft:1")
    config = dataclasses.replace(QUICK, probe="solved", epochs=2, average="wise_ft")
    result = fit(model, plan, without_validation(data), config, TrunkCache())
    assert [chosen["share"] for chosen in result.interpolated.values()] == [0.5]


def test_wise_ft_needs_a_phase_before(taught: Callable[..., Any], data: TrainingData) -> None:
    states = []
    for average in ("none", "wise_ft"):
        model, plan = taught("partial:1")
        result = fit(model, plan, data, dataclasses.replace(QUICK, epochs=2, average=average), TrunkCache())
        assert not result.interpolated
        states.append(copy_state(model))
    assert not changed_names(*states)


@given(share=st.floats(0, 1), values=st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=6))
def test_interpolated_weights_lie_between(share: float, values: list[float]) -> None:
    before, after = torch.tensor(values), torch.tensor(values[::-1])
    count = torch.tensor(3)
    found = interpolate_weights({"w": before, "n": torch.tensor(1)}, {"w": after, "n": count}, share)
    low, high = torch.minimum(before, after), torch.maximum(before, after)
    assert ((found["w"] >= low - 1e-4) & (found["w"] <= high + 1e-4)).all()
    assert int(found["n"]) == (1 if share == 0 else 3)


def test_the_least_of_several_equal_shares_is_chosen() -> None:
    assert choose_share(lambda share: (0.9, 0.0) if share >= 0.3 else (0.8, 0.0)) == (0.3, (0.9, 0.0))
    assert choose_share(lambda share: None) == (0.5, None)


def test_weights_of_a_resumed_run_are_interpolated_on_the_device_of_the_others() -> None:
    """What was saved is on the CPU."""
    before, after = torch.zeros(3), torch.ones(3, device="meta")  # a device on any machine
    assert interpolate_weights({"w": before}, {"w": after}, 0.3)["w"].device.type == "meta"
