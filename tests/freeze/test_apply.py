"""What a phase lets learn and holds, and the proof of it. (What training leaves alone: ``test_freeze_laws.py``.)"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.freeze import plan
from transfer.freeze.apply import changed, frozen_tensors, held_in_eval, learning


def nudged(tensor: Tensor) -> None:
    """Move one number of `tensor` to its neighbour."""
    with torch.no_grad():
        first = (0,) * tensor.ndim
        one = tensor[first]
        tensor[first] = torch.nextafter(one, torch.tensor(torch.inf)) if one.is_floating_point() else one + 1


@given(
    a=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
    b=st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xy")),
)
def test_changed(a: dict[str, str], b: dict[str, str]) -> None:
    expected = [k for k in "abcd" if (k in a or k in b) and (k not in a or k not in b or a[k] != b[k])]
    assert changed(a, b) == tuple(expected)


def test_digests_see_every_bit(small: Callable[..., Backbone]) -> None:
    backbone = small("test_resnet")
    phases = plan("linear_probe", backbone).phases
    for name, tensor in [*backbone.network.named_parameters(), *backbone.network.named_buffers()]:
        before = frozen_tensors(backbone, phases)
        nudged(tensor)
        assert changed(before, frozen_tensors(backbone, phases)) == (name,)


@pytest.mark.parametrize(("policy", "opened"), [("linear_probe", ()), ("partial:2", (3, 4)), ("surgical:first", (0,))])
def test_what_learns_is_what_the_plan_opens(
    small: Callable[..., Backbone], policy: str, opened: tuple[int, ...]
) -> None:
    backbone = small("test_resnet")
    (phase,) = plan(policy, backbone).phases
    names = {name for name, _ in backbone.network.named_parameters() if backbone.stage_of(name) in opened}
    assert set(learning(backbone, phase)) == names
    held = set(held_in_eval(backbone, phase))
    for path, module in backbone.network.named_modules():
        if module._parameters or module._buffers:
            assert (module in held) == (backbone.stage_of(path) not in opened), path


def test_norm_only_holds_all_but_norms(small: Callable[..., Backbone]) -> None:
    backbone = small("test_resnet")
    (phase,) = plan("norm_only", backbone).phases
    held = set(held_in_eval(backbone, phase))
    for module in backbone.network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            assert (module in held) == isinstance(module, nn.Conv2d)
