"""The plans that are made of policies."""

import copy
import functools
import itertools
from collections.abc import Callable

import pytest
from torch import nn

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.errors import TransferError
from transfer.freeze import FreezePolicy, plan
from transfer.freeze.policies import HEAD2TOE_PERCENTS

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
            trained = sum(
                p.numel()
                for t, p in freeze.find_trained_parameters(backbone, phase).items()
                if backbone.stage_of(t) == i
            )
            assert stage.trained == trained
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


@pytest.mark.parametrize("policy", ["partial:2", "full", "norm_only", "lp_ft", "gradual", "surgical:first"])
@pytest.mark.parametrize("weights", ["random", "bundle", "store somewhere", "hub https://somewhere"])
def test_pretrained_statistics_stay_frozen_by_default(
    built: Callable[[str], Backbone], policy: str, weights: str
) -> None:
    backbone = built("test_resnet")
    backbone = Backbone(backbone.name, backbone.network, backbone.preprocessing, weights=weights)
    expected = "learning" if weights == "random" else "frozen"  # where there was none, there is nothing to keep
    for asked, found in (("auto", expected), ("learning", "learning"), ("frozen", "frozen")):
        stages = [stage for phase in plan(policy, backbone, statistics=asked).phases for stage in phase.stages]
        assert {stage.statistics for stage in stages if stage.train != "none"} == {found}
        assert {stage.statistics for stage in stages if stage.train == "none"} <= {"frozen"}
    assert plan(policy, backbone) == plan(policy, backbone, statistics="auto")


def test_a_truncated_network_is_planned_like_a_shorter_one(built: Callable[[str], Backbone]) -> None:
    short = freeze.reshape_backbone(copy.deepcopy(built("test_resnet")), FreezePolicy.parse("truncate:2"))
    the_plan = plan("truncate:2+partial:1", short, backbone_lr=0.2)
    (phase,) = the_plan.phases
    assert [(stage.name, stage.frozen) for stage in phase.stages] == [
        ("stem", True),
        ("layer1", True),
        ("layer2", False),
    ]
    assert phase.stages[-1].rate == 0.2
    whole = plan("partial:3", built("test_resnet")).phases[0].stages
    assert the_plan.trained_parameters == whole[2].parameters
    assert the_plan.frozen_parameters == sum(stage.parameters for stage in whole[:2])
    assert the_plan.dropped == ("layer3", "layer4")
    table = [line.split() for line in str(the_plan).splitlines()]
    assert table[4:6] == [["layer3", "dropped"], ["layer4", "dropped"]]
    with pytest.raises(TransferError, match=r"truncate:2\+lp_ft:4: test_resnet has 3 stages left \(stem, .*layer2\)"):
        plan("truncate:2+lp_ft:4", short)
    with pytest.raises(ValueError, match="test_resnet still has its last stages"):
        plan("truncate:2", built("test_resnet"))
    assert not plan("truncate:2+scratch", short).pretrained


def test_stage_probes_are_one_phase_in_which_nothing_moves(built: Callable[[str], Backbone]) -> None:
    stacked = freeze.reshape_backbone(copy.deepcopy(built("test_resnet")), FreezePolicy.parse("stage_probes"))
    (phase,) = plan("stage_probes", stacked).phases
    assert phase.by_stage
    assert phase.cut == len(phase.stages)
    assert "the mean of probes on the features of several stages" in str(plan("stage_probes", stacked))


def test_head2toe_lists_its_percentages(built: Callable[[str], Backbone]) -> None:
    stacked = freeze.reshape_backbone(copy.deepcopy(built("test_resnet")), FreezePolicy.parse("head2toe"))
    (phase,) = plan("head2toe", stacked).phases
    assert phase.percents == HEAD2TOE_PERCENTS
    assert phase.cut == len(stacked.stages)
    assert plan("head2toe:5", stacked).phases[0].percents == (5.0,)
    assert "on 5 % of the features of all stages" in str(plan("head2toe:5", stacked))
    assert "100, 50, 20, 10, 5, 2, 1 % of the features of all stages (validation" in str(plan("head2toe", stacked))
    assert not plan("linear_probe", stacked).phases[0].percents


def test_auto_has_no_plan(small: Callable[..., Backbone]) -> None:
    with pytest.raises(TransferError, match="policy auto needs advice"):
        plan("auto", small())
