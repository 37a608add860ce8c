"""Which modules are normalisation layers, and which tensors are theirs."""

from collections.abc import Callable

import pytest
from timm.layers import GroupNormAct, LayerNormAct2d
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from transfer.backbones.backbone import Backbone
from transfer.freeze.norms import is_norm, norm_tensors


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
    assert is_norm(module) == norm


def test_the_tensors_of_norms_are_parameters_and_buffers(small: Callable[..., Backbone]) -> None:
    network = small("test_resnet").network
    expected = {
        f"{path}.{name}"
        for path, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert norm_tensors(small("test_resnet")) == expected
    assert len(expected) > 50
