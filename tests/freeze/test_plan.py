"""Policies as they are written, and the plans made of them."""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import GroupNormAct, LayerNormAct2d
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.errors import TransferError
from transfer.freeze import FreezePolicy, plan

POLICIES = ["linear_probe", "partial:1", "partial:2", "norm_only", "full", "surgical:first", "surgical:middle"]
POLICIES += ["surgical:last", "lp_ft", "gradual:1", "gradual:bottom_up", "scratch"]


@pytest.fixture(scope="module")
def built(small: Callable[..., Backbone]) -> Callable[[str], Backbone]:
    """Build each backbone once."""
    return functools.cache(small)


def test_gradual_opens_one_stage_more_in_each_phase(built: Callable[[str], Backbone]) -> None:
    backbone = built("test_resnet")
    n = len(backbone.stages)
    phases = plan("gradual", backbone).phases
    opened = [[i for i, stage in enumerate(phase.stages) if not stage.frozen] for phase in phases]
    assert opened == [list(range(n - k, n)) for k in range(n + 1)]
    assert [phase.cut for phase in phases] == [n - k for k in range(n + 1)]
    assert len(plan("gradual:2", backbone).phases) == 3


def test_gradual_bottom_up_opens_the_lowest_stage_first(built: Callable[[str], Backbone]) -> None:
    backbone = built("test_resnet")
    n = len(backbone.stages)
    phases = plan("gradual:bottom_up", backbone, backbone_lr=0.2, layer_decay=0.5).phases
    opened = [[i for i, stage in enumerate(phase.stages) if not stage.frozen] for phase in phases]
    assert opened == [list(range(k)) for k in range(n + 1)]
    assert [phase.name for phase in phases] == ["heads", *(f"bottom {k}" for k in range(1, n + 1))]
    assert [phase.cut for phase in phases] == [n] + n * [0]
    down = plan("gradual", backbone, backbone_lr=0.2, layer_decay=0.5).phases
    assert phases[-1].stages == down[-1].stages  # the order differs, the rates and shares do not
    assert [phase.share for phase in phases] == [phase.share for phase in down]


@pytest.mark.parametrize("policy", POLICIES)
def test_plan_of_mobilenet(small: Callable[..., Backbone], policy: str) -> None:
    backbone = small("mobilenetv2_100")
    names = ["stem", *(f"blocks.{i}" for i in range(7)), "conv_head"]
    total = sum(p.numel() for p in backbone.network.parameters())
    of_norms = sum(
        p.numel()
        for m in backbone.network.modules()
        if isinstance(m, nn.BatchNorm2d)
        for p in m.parameters(recurse=False)
    )
    the_plan = plan(policy, backbone, backbone_lr=0.2, layer_decay=0.5)
    assert the_plan.trained_parameters + the_plan.frozen_parameters == total
    assert sum(phase.share for phase in the_plan.phases) == pytest.approx(1)
    for phase in the_plan.phases:
        assert [stage.name for stage in phase.stages] == names
        assert sum(stage.parameters for stage in phase.stages) == total
        rates = [stage.rate for stage in phase.stages if not stage.frozen]
        assert all(low < high for low, high in itertools.pairwise(rates)) or policy == "scratch"
        assert all(rate <= phase.heads_rate for rate in rates)
        for i, stage in enumerate(phase.stages):
            assert stage.rate == (
                0 if stage.frozen else 1 if policy == "scratch" else pytest.approx(0.2 * 0.5 ** (8 - i))
            )
            assert (stage.trained == 0) == stage.frozen
            learned = sum(p.numel() for t, p in freeze.learning(backbone, phase).items() if backbone.stage_of(t) == i)
            assert stage.trained == learned
    expected = {"linear_probe": 0, "full": total, "scratch": total, "lp_ft": total, "norm_only": of_norms}
    if policy in expected:
        assert the_plan.trained_parameters == expected[policy]
    assert the_plan.pretrained == (policy != "scratch")
    text = str(the_plan)
    assert [line.split()[0] for line in text.splitlines()[1:11]] == [*names, "heads"]
    assert f"{the_plan.phases[0].stages[8].parameters:,}" in text
    assert text.count("frozen") == sum(stage.frozen for phase in the_plan.phases for stage in phase.stages)


def test_lp_ft_probes_first_and_then_holds_the_heads_back(built: Callable[[str], Backbone]) -> None:
    probe, tune = plan("lp_ft:2", built("test_resnet"), backbone_lr=0.3).phases
    assert (probe.name, tune.name) == ("probe", "fine-tune")
    assert all(stage.frozen for stage in probe.stages)
    assert [stage.frozen for stage in tune.stages] == [True, True, True, False, False]
    assert (probe.heads_rate, tune.heads_rate, tune.stages[-1].rate) == (1.0, 0.3, 0.3)


@pytest.mark.parametrize(
    ("module", "norm"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.BatchNorm1d(4), True),
        (nn.BatchNorm3d(4, affine=False), True),
        (nn.SyncBatchNorm(4), True),
        (nn.InstanceNorm2d(4, affine=True), True),
        (nn.GroupNorm(2, 4), True),
        (nn.LayerNorm(4), True),
        (nn.RMSNorm(4), True),
        (FrozenBatchNorm2d(4), True),
        (FrozenBatchNormAct2d(4), True),
        (GroupNormAct(4, 2), True),
        (LayerNormAct2d(4), True),
        (nn.Conv2d(4, 4, 1), False),
        (nn.Linear(4, 4), False),
        (nn.Sequential(nn.BatchNorm2d(4)), False),
        (nn.LocalResponseNorm(2), False),
    ],
)
def test_is_norm(module: nn.Module, norm: bool) -> None:
    assert freeze.is_norm(module) == norm


ANY = st.one_of(
    st.sampled_from(["linear_probe", "full", "norm_only", "scratch", "lp_ft", "gradual"]).map(FreezePolicy),
    st.builds(FreezePolicy, st.sampled_from(["partial", "lp_ft", "gradual"]), st.integers(1, 99)),
    st.builds(FreezePolicy, st.just("surgical"), part=st.sampled_from(["first", "middle", "last"])),
    st.just(FreezePolicy("gradual", part="bottom_up")),
)


@given(policy=ANY)
def test_parse_and_str_round_trip(policy: FreezePolicy) -> None:
    assert FreezePolicy.parse(str(policy)) == policy
    assert FreezePolicy.parse(f" {policy} ") == policy
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.kind = "full"  # type: ignore[misc]


@given(
    text=st.text(max_size=12)
    | st.sampled_from(list(freeze.POLICIES)).flatmap(lambda k: st.text(max_size=4).map(f"{k}:".__add__))
)
def test_any_text_is_a_policy_or_one_clear_line(text: str) -> None:
    message = ""
    try:
        policy = FreezePolicy.parse(text)
    except TransferError as error:
        message = str(error)
    else:
        assert FreezePolicy.parse(str(policy)) == policy
    assert "\n" not in message
    assert not message or repr(text) in message or message.startswith("unknown policy")


def test_partial_alone_means_two_stages() -> None:
    assert FreezePolicy.parse("partial") == FreezePolicy.parse("partial:2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "linear-probe",
            r"unknown policy 'linear-probe' \(did you mean 'linear_probe'\?\); known: linear_probe, partial",
        ),
        ("zebra", r"unknown policy 'zebra'; known: .*scratch"),
        ("partial:0", "after the colon comes a number of stages, such as partial:2"),
        ("partial:", "after the colon comes a number of stages"),
        ("partial:-1", "after the colon comes a number of stages"),
        ("partial:two", "after the colon comes a number of stages"),
        ("gradual:²", "after the colon comes a number of stages"),
        ("gradual:bottom", "after the colon comes a number of stages, such as gradual:2 or gradual:bottom_up"),
        ("partial:bottom_up", "after the colon comes a number of stages, such as partial:2$"),
        ("full:3", "full takes nothing after the colon"),
        ("surgical", "incomplete: write one of surgical:first, surgical:middle, surgical:last"),
        ("surgical:", "incomplete: write one of surgical:first"),
        ("surgical:top", "write one of surgical:first"),
    ],
)
def test_errors_say_what_to_write(text: str, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        FreezePolicy.parse(text)


@pytest.mark.parametrize("policy", ["partial:6", "gradual:9", "lp_ft:6"])
def test_more_stages_than_there_are(built: Callable[[str], Backbone], policy: str) -> None:
    with pytest.raises(TransferError, match=rf"policy {policy}: test_resnet has 5 stages \(stem, layer1, .*layer4\)"):
        plan(policy, built("test_resnet"))


def test_surgical_parts_are_a_partition(built: Callable[[str], Backbone]) -> None:
    for name in ("test_resnet", "torchvision:squeezenet1_1", "test_efficientnet", "lcnet_035"):
        backbone = built(name)
        parts = [plan(f"surgical:{part}", backbone).phases[0].stages for part in ("first", "middle", "last")]
        opened = [[not part[i].frozen for part in parts].count(True) for i in range(len(backbone.stages))]
        assert opened == [1] * len(backbone.stages)
        assert all(any(not stage.frozen for stage in part) for part in parts)
