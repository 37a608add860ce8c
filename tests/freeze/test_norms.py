"""Which modules are normalisation layers, and which tensors are theirs."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import GroupNormAct, LayerNormAct2d
from timm.layers.norm_act import FrozenBatchNormAct2d
from timm.models.nfnet import NormFreeBlock
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from transfer.backbones.backbone import Backbone
from transfer.errors import TransferError
from transfer.freeze.norms import (
    choose_batch_size,
    count_least_rows,
    find_norm_tensors,
    force_input_gradients,
    is_norm,
    refuse_single_values,
)


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
        (NormFreeBlock(8, skipinit=True, act_layer=nn.ReLU), False),  # a gain of its own, and no norm
    ],
)
def test_is_norm(module: nn.Module, norm: bool) -> None:
    assert is_norm(module) == norm


def test_the_tensors_of_norms_are_parameters_and_buffers(small: Callable[..., Backbone]) -> None:
    network = small("test_resnet").network
    expected = {
        f"{path}.{name}"
        for path, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert find_norm_tensors(small("test_resnet")) == expected
    assert len(expected) > 50


def test_a_trained_group_norm_gets_correct_gradients() -> None:
    """What comes before it is frozen; torch to 2.11 crashes there on channels-last input."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8))
    network = network.to(memory_format=torch.channels_last).requires_grad_(False)
    network[1].requires_grad_(True)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(network)
    (hook,) = force_input_gradients(network)
    given: list[bool] = []
    network[1].register_forward_hook(lambda module, inputs, out: given.append(inputs[0].requires_grad))
    network(x).square().sum().backward()
    plain(x.clone().requires_grad_()).square().sum().backward()
    assert torch.equal(network[1].weight.grad, plain[1].weight.grad)
    assert torch.equal(network[1].bias.grad, plain[1].bias.grad)
    with torch.inference_mode():
        assert torch.equal(network(x), plain(x))
    assert given == [True, False]
    hook.remove()
    assert not network[1]._forward_pre_hooks


@given(st.integers(1, 500), st.integers(1, 70))
def test_no_batch_of_one_image_where_two_are_needed(rows: int, size: int) -> None:
    chosen = choose_batch_size(rows, size, 2)
    assert chosen == size or rows % size == 1
    assert rows == 1 or chosen == 1 or rows % chosen != 1
    assert choose_batch_size(rows, size, 1) == size


def test_statistics_that_are_learned_need_two_images() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    assert count_least_rows(network.train()) == 2
    network[1].eval()
    assert count_least_rows(network) == 1
    with pytest.raises(TransferError, match="one image has no variance"), refuse_single_values():
        nn.BatchNorm1d(4)(torch.ones(1, 4))
    with pytest.raises(ValueError, match="another"), refuse_single_values():
        raise ValueError("another")
