"""A plan applied to a backbone. Whole training runs: ``test_freeze_laws.py``."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone
from transfer.errors import TransferError
from transfer.freeze import (
    FreezePolicy,
    find_changed_tensors,
    find_frozen_modules,
    find_frozen_tensors,
    find_trained_parameters,
    hash_frozen_tensors,
    plan,
    reshape_backbone,
)


def nudge(tensor: Tensor) -> None:
    """Change one number of `tensor` to the next representable one."""
    with torch.no_grad():
        first = (0,) * tensor.ndim
        one = tensor[first]
        tensor[first] = torch.nextafter(one, torch.tensor(torch.inf)) if one.is_floating_point() else one + 1


@given(
    a=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
    b=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
)
def test_changed_tensors(a: dict[str, str], b: dict[str, str]) -> None:
    expected = [k for k in "abcd" if (k in a or k in b) and (k not in a or k not in b or a[k] != b[k])]
    assert find_changed_tensors(a, b) == tuple(expected)


def test_frozen_tensors_are_those_that_no_phase_trains(small: Callable[..., Backbone]) -> None:
    backbone = small("test_resnet")
    tensors = {**dict(backbone.network.named_parameters()), **dict(backbone.network.named_buffers())}
    frozen = find_frozen_tensors(backbone, plan("linear_probe", backbone).phases)
    assert frozen.keys() == tensors.keys()
    assert all(frozen[name] is tensor for name, tensor in tensors.items())
    assert find_frozen_tensors(backbone, plan("full", backbone, statistics="learning").phases) == {}


def test_digests_see_every_bit(small: Callable[..., Backbone]) -> None:
    backbone = small("test_resnet")
    phases = plan("linear_probe", backbone).phases
    for name, tensor in [*backbone.network.named_parameters(), *backbone.network.named_buffers()]:
        before = hash_frozen_tensors(backbone, phases)
        nudge(tensor)
        assert find_changed_tensors(before, hash_frozen_tensors(backbone, phases)) == (name,)


@pytest.mark.parametrize(("policy", "trained"), [("linear_probe", ()), ("partial:2", (3, 4)), ("surgical:first", (0,))])
def test_trained_parameters_are_those_that_the_plan_names(
    small: Callable[..., Backbone], policy: str, trained: tuple[int, ...]
) -> None:
    backbone = small("test_resnet")
    (phase,) = plan(policy, backbone).phases
    names = {name for name, _ in backbone.network.named_parameters() if backbone.stage_of(name) in trained}
    assert set(find_trained_parameters(backbone, phase)) == names
    frozen = set(find_frozen_modules(backbone, phase))
    for path, module in backbone.network.named_modules():
        if module._parameters or module._buffers:
            assert (module in frozen) == (backbone.stage_of(path) not in trained), path


def test_norm_only_freezes_all_modules_but_norms(small: Callable[..., Backbone]) -> None:
    backbone = small("test_resnet")
    (phase,) = plan("norm_only", backbone).phases
    frozen = set(find_frozen_modules(backbone, phase))
    for module in backbone.network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            assert (module in frozen) == isinstance(module, nn.Conv2d)


@pytest.mark.parametrize("policy", ["linear_probe", "full", "scratch", "lp_ft:2"])
def test_most_policies_leave_the_network_as_it_is(small: Callable[..., Backbone], policy: str) -> None:
    backbone = small("test_resnet")
    assert reshape_backbone(backbone, FreezePolicy.parse(policy)) is backbone


@pytest.mark.parametrize("policy", ["truncate:2", "truncate:2+full", "truncate:2+scratch"])
def test_truncate_removes_stages_from_the_top(small: Callable[..., Backbone], policy: str) -> None:
    short = reshape_backbone(small("test_resnet"), FreezePolicy.parse(policy))
    assert isinstance(short, TruncatedBackbone)
    assert short.dropped == ("layer3", "layer4")
    assert [stage.name for stage in short.stages] == ["stem", "layer1", "layer2"]
    assert not any("layer3" in name or "layer4" in name for name in short.state_dict())
    assert not any(module.training for module in short.modules())


def test_truncating_twice_drops_both_parts(small: Callable[..., Backbone]) -> None:
    once = reshape_backbone(small("test_resnet"), FreezePolicy.parse("truncate:3"))
    twice = reshape_backbone(
        reshape_backbone(small("test_resnet"), FreezePolicy.parse("truncate:2")), FreezePolicy.parse("truncate:1")
    )
    assert twice.dropped == once.dropped == ("layer2", "layer3", "layer4")
    assert twice.state_dict().keys() == once.state_dict().keys()


def test_head2toe_outputs_features_of_all_stages(small: Callable[..., Backbone]) -> None:
    backbone = reshape_backbone(small("test_resnet"), FreezePolicy.parse("head2toe:10"))
    assert isinstance(backbone, AllStagesBackbone)
    assert backbone.width > small("test_resnet").width
    assert not backbone.training


@pytest.mark.parametrize("policy", ["truncate:5", "truncate:99+full"])
def test_one_stage_must_remain(small: Callable[..., Backbone], policy: str) -> None:
    message = (
        rf"policy {policy.replace('+', '[+]')}: test_resnet has 5 stages \(stem, .*layer4\), of which 4 at most can"
    )
    with pytest.raises(TransferError, match=message):
        reshape_backbone(small("test_resnet"), FreezePolicy.parse(policy))
