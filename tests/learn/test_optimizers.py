import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transfer.config import LearnConfig
from transfer.learn import optimizers
from transfer.learn.optimizers import course

SCHEDULES = ["cosine", "step", "constant"]


@pytest.mark.parametrize(
    "policy", ["linear_probe", "partial:2", "full", "norm_only", "surgical:middle", "gradual:2", "lp_ft"]
)
def test_groups_hold_all_that_ever_learns_once(taught: Callable[..., Any], policy: str) -> None:
    model, plan = taught(policy)
    groups = optimizers.groups(model, plan, 0.1)
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
    groups = optimizers.groups(model, plan, 0.1)
    assert [g["name"] for g in groups] == [
        *("heads", "heads, no decay", "layer3", "layer3, no decay", "layer4", "layer4, no decay")
    ]
    for group in groups:
        decays = "no decay" not in group["name"]
        assert group["weight_decay"] == (0.1 if decays else 0.0)
        for name, p in zip(group["names"], group["params"], strict=True):
            assert (p.ndim > 1) == decays, name
            owner = model.heads if group["stage"] == optimizers.HEADS else model.backbone.network
            assert owner.get_parameter(name) is p
            module = owner.get_submodule(name.rpartition(".")[0])
            is_weight = name.endswith("weight") and isinstance(module, nn.Conv2d | nn.Linear)
            assert is_weight == decays, name


def test_rates_follow_the_phase(taught: Callable[..., Any]) -> None:
    model, plan = taught("gradual", backbone_lr=0.5, layer_decay=0.1)
    optimizer = optimizers.build(model, plan, LearnConfig())
    for k, phase in enumerate(plan.phases):
        optimizers.set_rates(optimizer, phase, 0.2)
        for group in optimizer.param_groups:
            stage = group["stage"]
            expected = 0.2 if stage == optimizers.HEADS else 0.2 * 0.5 * 0.1 ** (4 - stage) if stage >= 5 - k else 0.0
            assert group["lr"] == pytest.approx(expected), (phase.name, group["name"])


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.8, "nesterov": False}),
        ("nesterov", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
    ],
)
def test_build(taught: Callable[..., Any], name: Any, kind: type, settings: dict[str, Any]) -> None:
    model, plan = taught("partial:1")
    optimizer = optimizers.build(model, plan, LearnConfig(optimizer=name, momentum=0.8, lr=0.03))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.03
        assert settings.items() <= group.items()


def test_nesterov_without_momentum_is_plain_descent(taught: Callable[..., Any]) -> None:
    model, plan = taught()
    group = optimizers.build(model, plan, LearnConfig(optimizer="nesterov", momentum=0.0)).param_groups[0]
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


@given(schedule=st.sampled_from(SCHEDULES), progress=st.floats(0, 1), warmup=st.floats(0, 1))
def test_the_factor_is_between_nought_and_one(schedule: str, progress: float, warmup: float) -> None:
    assert 0.0 <= course(schedule, progress, warmup) <= 1.0


@given(schedule=st.sampled_from(SCHEDULES), warmup=st.floats(0, 0.9), steps=st.lists(st.floats(0, 1), min_size=2))
def test_it_rises_in_the_warmup_and_never_after(schedule: str, warmup: float, steps: list[float]) -> None:
    steps = sorted(steps)
    for a, b in itertools.pairwise(steps):
        if b < warmup:
            assert course(schedule, a, warmup) <= course(schedule, b, warmup)
        elif a >= warmup:
            assert course(schedule, a, warmup) >= course(schedule, b, warmup) - 1e-12


@given(schedule=st.sampled_from(SCHEDULES), warmup=st.floats(0.01, 0.9), part=st.floats(0, 0.999))
def test_warmup_is_linear_from_nought_and_ends_at_one(schedule: str, warmup: float, part: float) -> None:
    assert course(schedule, part * warmup, warmup) == pytest.approx(part, abs=1e-9)
    assert course(schedule, warmup, warmup) == 1.0


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_shapes(warmup: float) -> None:
    for rest in (0.0, 0.2, 0.32, 0.35, 0.5, 0.65, 0.68, 0.9, 1.0):
        progress = warmup + rest * (1 - warmup)
        assert course("constant", progress, warmup) == 1.0
        assert course("cosine", progress, warmup) == pytest.approx((1 + math.cos(math.pi * rest)) / 2)
        assert course("step", progress, warmup) == pytest.approx(1 if rest < 1 / 3 else 0.1 if rest < 2 / 3 else 0.01)
