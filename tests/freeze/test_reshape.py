"""What a policy makes of a backbone before anything learns."""

from collections.abc import Callable

import pytest

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import EveryStage, Truncated
from transfer.errors import TransferError
from transfer.freeze import FreezePolicy, reshaped


@pytest.mark.parametrize("policy", ["linear_probe", "full", "scratch", "lp_ft:2"])
def test_most_policies_take_a_network_as_it_is(small: Callable[..., Backbone], policy: str) -> None:
    backbone = small("test_resnet")
    assert reshaped(backbone, FreezePolicy.parse(policy)) is backbone


@pytest.mark.parametrize("policy", ["truncate:2", "truncate:2+full", "truncate:2+scratch"])
def test_truncate_takes_stages_off_the_top(small: Callable[..., Backbone], policy: str) -> None:
    short = reshaped(small("test_resnet"), FreezePolicy.parse(policy))
    assert isinstance(short, Truncated)
    assert short.dropped == ("layer3", "layer4")
    assert [stage.name for stage in short.stages] == ["stem", "layer1", "layer2"]
    assert not any("layer3" in name or "layer4" in name for name in short.state_dict())
    assert not any(module.training for module in short.modules())


def test_truncated_twice_is_truncated_by_both(small: Callable[..., Backbone]) -> None:
    once = reshaped(small("test_resnet"), FreezePolicy.parse("truncate:3"))
    twice = reshaped(reshaped(small("test_resnet"), FreezePolicy.parse("truncate:2")), FreezePolicy.parse("truncate:1"))
    assert twice.dropped == once.dropped == ("layer2", "layer3", "layer4")
    assert twice.state_dict().keys() == once.state_dict().keys()


def test_head2toe_puts_out_every_stage(small: Callable[..., Backbone]) -> None:
    every = reshaped(small("test_resnet"), FreezePolicy.parse("head2toe:10"))
    assert isinstance(every, EveryStage)
    assert every.width > small("test_resnet").width
    assert not every.training


@pytest.mark.parametrize("policy", ["truncate:5", "truncate:99+full"])
def test_one_stage_has_to_remain(small: Callable[..., Backbone], policy: str) -> None:
    says = rf"policy {policy.replace('+', '[+]')}: test_resnet has 5 stages \(stem, .*layer4\), of which 4 at most can"
    with pytest.raises(TransferError, match=says):
        reshaped(small("test_resnet"), FreezePolicy.parse(policy))
