import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import timm.optim
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transfer.config.train import LearnConfig, RegulariseConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.heads.heads import Heads
from transfer.training import optimizers
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.optimizers import schedule_factor

SCHEDULES = ["cosine", "step", "constant"]


@pytest.mark.parametrize(
    "policy", ["linear_probe", "partial:2", "full", "norm_only", "surgical:middle", "gradual:2", "lp_ft"]
)
def test_groups_hold_all_that_ever_learns_once(taught: Callable[..., Any], policy: str) -> None:
    model, plan = taught(policy)
    groups = optimizers.group_parameters(model, plan, 0.1)
    held = [id(p) for group in groups for p in group["params"]]
    names = [name for group in groups for name in group["names"]]
    assert len(held) == len(set(held)) == len(names)
    ever = {i for phase in plan.phases for i, stage in enumerate(phase.stages) if not stage.frozen}
    norms = {
        f"{path}.{n}"
        for path, m in model.backbone.network.named_modules()
        if isinstance(m, nn.BatchNorm2d)
        for n in m._parameters
    }
    expected = {f"heads.{n}" for n, _ in model.heads.named_parameters()}
    for name, _ in model.backbone.network.named_parameters():
        if model.backbone.stage_of(name) in ever and (policy != "norm_only" or name in norms):
            expected.add(f"backbone.network.{name}")
    by_id = {id(p): name for name, p in model.named_parameters()}
    assert {by_id[i] for i in held} == expected


def test_group_names_and_decay_on_weights_only(taught: Callable[..., Any]) -> None:
    model, plan = taught("partial:2", hidden=(8,))
    groups = optimizers.group_parameters(model, plan, 0.1)
    assert [g["name"] for g in groups] == [
        *("heads", "heads, no decay", "layer3", "layer3, no decay", "layer4", "layer4, no decay")
    ]
    for group in groups:
        decays = "no decay" not in group["name"]
        assert group["weight_decay"] == (0.1 if decays else 0.0)
        for name, p in zip(group["names"], group["params"], strict=True):
            assert (p.ndim > 1) == decays, name
            owner = model.heads if group["stage"] == optimizers.HEADS_GROUP else model.backbone.network
            assert owner.get_parameter(name) is p
            module = owner.get_submodule(name.rpartition(".")[0])
            is_weight = name.endswith("weight") and isinstance(module, nn.Conv2d | nn.Linear)
            assert is_weight == decays, name


@pytest.mark.parametrize("kept", [{"l2_sp": 0.1}, {"delta": 0.1}, {"bss": 0.1}])
def test_what_is_kept_near_its_start_has_no_decay(taught: Callable[..., Any], kept: dict[str, float]) -> None:
    model, plan = taught("partial:1")
    optimizer = optimizers.build_optimizer(
        model, plan, LearnConfig(weight_decay=0.3, regularise=RegulariseConfig(**kept))
    )
    decays = {g["name"]: g["weight_decay"] for g in optimizer.param_groups if g["weight_decay"]}
    assert decays == ({"heads": 0.3, "layer4": 0.3} if "bss" in kept else {"heads": 0.3})
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert {id(p) for p in model.backbone.network.layer4.parameters()} <= held


def test_rates_follow_the_phase(taught: Callable[..., Any]) -> None:
    model, plan = taught("gradual", backbone_lr=0.5, layer_decay=0.1)
    optimizer = optimizers.build_optimizer(model, plan, LearnConfig())
    for k, phase in enumerate(plan.phases):
        optimizers.set_rates(optimizer, phase, 0.2)
        for group in optimizer.param_groups:
            stage = group["stage"]
            expected = (
                0.2 if stage == optimizers.HEADS_GROUP else 0.2 * 0.5 * 0.1 ** (4 - stage) if stage >= 5 - k else 0.0
            )
            assert group["lr"] == pytest.approx(expected), (phase.name, group["name"])


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": False}),
        ("nesterov", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("momentum", torch.optim.SGD, {"momentum": 0.8, "nesterov": False}),
        ("adagrad", torch.optim.Adagrad, {}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0}),
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
    ],
)
def test_build(taught: Callable[..., Any], name: Any, kind: type, settings: dict[str, Any]) -> None:
    model, plan = taught("partial:1")
    optimizer = optimizers.build_optimizer(model, plan, LearnConfig(optimizer=name, momentum=0.8, lr=0.03))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.03
        assert settings.items() <= group.items()


def test_nesterov_without_momentum_is_plain_descent(taught: Callable[..., Any]) -> None:
    model, plan = taught()
    group = optimizers.build_optimizer(model, plan, LearnConfig(optimizer="nesterov", momentum=0.0)).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


@pytest.mark.parametrize(
    "name", ["lion", "lamb", "sgdp", "adafactor", "muon", "adahessian", "lookahead_radam", "lbfgs"]
)
def test_unusual_ones_learn_by_name(taught: Callable[..., Any], data: TrainingData, name: str) -> None:
    if name == "muon" and name not in timm.optim.list_optimizers():
        pytest.skip("this version of timm has no muon")
    model, plan = taught("partial:1")
    config = LearnConfig(optimizer=name, lr=0.01, epochs=1, batch_size=12, workers=1)
    before = {n: p.detach().clone() for n, p in model.heads.named_parameters()}
    result = fit(model, plan, data, config, TrunkCache())
    assert not result.moved
    assert not result.stopped
    assert result.optimizer_bytes > 0
    assert all(not torch.equal(p, before[n]) for n, p in model.heads.named_parameters())


@pytest.mark.parametrize(
    ("name", "says"),
    [("adan2", "did you mean 'adan'"), ("nesterof", "did you mean 'nesterov'"), ("lookahead_lbfgs", "known: sgd, ")],
)
def test_a_wrong_name(name: str, says: str) -> None:
    with pytest.raises(TransferError, match=says):
        optimizers.check_optimizer(name)
    group = {"params": [nn.Parameter(torch.ones(2))], "weight_decay": 0.0}
    with pytest.raises(TransferError, match=says):
        optimizers.create_optimizer([group], LearnConfig(optimizer=name))


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is CUDA it may run")
def test_an_optimizer_that_does_not_run_here(taught: Callable[..., Any]) -> None:
    with pytest.raises(TransferError, match="--optimizer fusedadam: CUDA required"):
        optimizers.build_optimizer(*taught(), LearnConfig(optimizer="fusedadam"))


def test_lbfgs_on_all_rows_comes_to_the_solution(taught: Callable[..., Any], data: TrainingData) -> None:
    """The convex problem of a probe has one answer, where its slope is 0; small batches do not let it find that."""
    data = dataclasses.replace(data, val=data.val[:0])
    labels = {name: torch.from_numpy(data.table.targets[name].values[data.train]) for name in ("object", "domain")}
    value, slope = {}, {}
    for size in (0, 6):
        model, plan = taught()
        config = LearnConfig(optimizer="lbfgs", probe="trained", batch_size=size, epochs=5, workers=1, clip=1e-6)
        fit(model, plan, data, config, TrunkCache())
        feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=64)
        features = next(feed.batches(data.train))[1]
        weights = [p for p in model.heads.parameters() if p.ndim > 1]
        loss = model.heads.loss(model(features), labels, smoothing=config.label_smoothing)
        loss = loss + config.weight_decay / 2 * sum(w.square().sum() for w in weights)
        value[size] = float(loss)
        slope[size] = max(float(g.abs().max()) for g in torch.autograd.grad(loss, list(model.heads.parameters())))
    assert slope[0] < 1e-3
    assert slope[6] > 10 * slope[0]
    assert value[6] > value[0]


def test_lbfgs_warns_of_small_batches(taught: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    optimizers.build_optimizer(*taught(), LearnConfig(optimizer="lbfgs", batch_size=0))
    assert not caplog.records
    optimizers.build_optimizer(*taught(), LearnConfig(optimizer="lbfgs", batch_size=32))
    assert "--batch-size 0" in caplog.text


def test_rates_are_no_business_of_lbfgs(taught: Callable[..., Any]) -> None:
    model, plan = taught("partial:1")
    optimizer = optimizers.build_optimizer(model, plan, LearnConfig(optimizer="lbfgs", batch_size=0))
    optimizers.set_rates(optimizer, plan.phases[0], 1e-4)
    assert optimizer.param_groups[0]["lr"] == 1


def test_all_at_once_is_one_step_an_epoch(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    loss = Heads.loss
    monkeypatch.setattr(
        Heads,
        "loss",
        lambda self, out, wanted, **how: sizes.append(len(wanted["object"])) or loss(self, out, wanted, **how),
    )
    model, plan = taught()
    data = dataclasses.replace(data, val=data.val[:0])
    fit(model, plan, data, LearnConfig(probe="trained", batch_size=0, epochs=3, workers=1), TrunkCache())
    assert sizes == [len(data.train)] * 3


@given(schedule=st.sampled_from(SCHEDULES), progress=st.floats(0, 1), warmup=st.floats(0, 1))
def test_the_factor_is_between_nought_and_one(schedule: str, progress: float, warmup: float) -> None:
    assert 0.0 <= schedule_factor(schedule, progress, warmup) <= 1.0


@given(schedule=st.sampled_from(SCHEDULES), warmup=st.floats(0, 0.9), steps=st.lists(st.floats(0, 1), min_size=2))
def test_it_rises_in_the_warmup_and_never_after(schedule: str, warmup: float, steps: list[float]) -> None:
    steps = sorted(steps)
    for a, b in itertools.pairwise(steps):
        if b < warmup:
            assert schedule_factor(schedule, a, warmup) <= schedule_factor(schedule, b, warmup)
        elif a >= warmup:
            assert schedule_factor(schedule, a, warmup) >= schedule_factor(schedule, b, warmup) - 1e-12


@given(schedule=st.sampled_from(SCHEDULES), warmup=st.floats(0.01, 0.9), part=st.floats(0, 0.999))
def test_warmup_is_linear_from_nought_and_ends_at_one(schedule: str, warmup: float, part: float) -> None:
    assert schedule_factor(schedule, part * warmup, warmup) == pytest.approx(part, abs=1e-9)
    assert schedule_factor(schedule, warmup, warmup) == 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_shapes(warmup: float) -> None:
    for rest in (0.0, 0.2, 0.32, 0.35, 0.5, 0.65, 0.68, 0.9, 1.0):
        progress = warmup + rest * (1 - warmup)
        assert schedule_factor("constant", progress, warmup) == 1.0
        assert schedule_factor("cosine", progress, warmup) == pytest.approx((1 + math.cos(math.pi * rest)) / 2)
        assert schedule_factor("step", progress, warmup) == pytest.approx(
            1 if rest < 1 / 3 else 0.1 if rest < 2 / 3 else 0.01
        )
