"""BatchNorm folded into convolutions while a tail is trained: the same outputs and gradients, nothing left behind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.backbones.backbone import Backbone
from transfer.backbones.folding import FoldedTraining, _find_depthwise_slope, _InPlaceReLU6
from transfer.data.images.preprocessing import Preprocessing

SIZE = 32


def wrap(*stages: nn.Module) -> Backbone:
    """Return a double-precision backbone of `stages`, whose norms have statistics as after training."""
    torch.manual_seed(0)
    preprocessing = Preprocessing((3, SIZE, SIZE), (0.5,) * 3, (0.5,) * 3, interpolation="bilinear", crop_pct=1.0)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return randomise(Backbone("mine", nn.Sequential(*stages, pool), preprocessing)).double()


def randomise(backbone: Backbone) -> Backbone:
    """Give every BatchNorm statistics, scales and shifts that are no identity; put it in eval mode."""
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 1.5, generator=generator)
    return backbone


def block(inputs: int, outputs: int, *, bias: bool = False, **options: object) -> nn.Sequential:
    """Return a convolution, BatchNorm and ReLU6."""
    conv = nn.Conv2d(inputs, outputs, **({"kernel_size": 3, "bias": bias} | options))  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


def run(backbone: Backbone, cut: int, x: Tensor, folded: FoldedTraining | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return features of the tail, and the gradient of each parameter for the sum of their squares."""
    backbone.zero_grad(set_to_none=True)
    if folded is None:
        features = backbone.tail(x.clone(), cut)
    else:
        with folded.applied():
            features = backbone.tail(x.clone(), cut)
    features.square().sum().backward()
    return features.detach(), {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}


def assert_same(backbone: Backbone, cut: int, folded: FoldedTraining, tolerance: float = 1e-9) -> None:
    """Assert that the folded tail has the outputs and gradients of the plain one."""
    shape = (3, *backbone.shape(cut))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(next(backbone.parameters())) * 4
    (expected, slopes), (got, folded_slopes) = (run(backbone, cut, x, each) for each in (None, folded))
    assert float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())
    assert slopes.keys() == folded_slopes.keys()
    assert slopes
    for name, slope in slopes.items():
        assert float((folded_slopes[name] - slope).norm()) <= tolerance * float(slope.norm()), name


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("test_resnet", 5),
        ("tf_efficientnet_lite0", 20),
        ("mobilenetv2_050", 20),
        ("torchvision:mobilenet_v2", 20),
        ("resnet18", 10),
        ("densenet121", 1),
    ],
)
def test_outputs_and_gradients_are_those_of_the_plain_tail(
    small: Callable[..., Backbone], name: str, least: int
) -> None:
    backbone = randomise(small(name, size=SIZE)).double().eval()
    for cut in (0, len(backbone.stages) // 2):
        if backbone.can_cut(cut):
            folded = FoldedTraining(backbone, cut)
            assert len(folded._pairs) >= (least if cut == 0 else 1)
            assert_same(backbone, cut, folded)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": "valid"},
        {"groups": 4, "padding": 1},
    ],
)
def test_every_kind_of_convolution(options: dict[str, object]) -> None:
    backbone = wrap(block(3, 4), block(4, 8, **options))
    folded = FoldedTraining(backbone, 0)
    assert len(folded._pairs) == 2
    assert_same(backbone, 0, folded)


def test_modules_are_restored_also_after_an_error() -> None:
    backbone = wrap(block(3, 4), block(4, 8))
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    folded = FoldedTraining(backbone, 0)
    handle = backbone.network[1].register_forward_hook(lambda *_: {}["missing"])
    with pytest.raises(KeyError, match="missing"), folded.applied():
        backbone(torch.rand(2, 3, SIZE, SIZE).double())
    handle.remove()
    assert not any("forward" in module.__dict__ for module in backbone.modules())
    run(backbone, 0, torch.rand(2, 3, SIZE, SIZE).double(), folded)
    assert not any("forward" in module.__dict__ for module in backbone.modules())
    assert not any(module.training for module in backbone.modules() if isinstance(module, nn.BatchNorm2d))
    after = backbone.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_norm_that_learns_its_statistics_is_not_folded() -> None:
    ours = wrap(block(3, 4), block(4, 8))
    plain = copy.deepcopy(ours)
    folded = FoldedTraining(ours, 0)
    x = torch.rand(4, 3, SIZE, SIZE).double()
    before = ours.network[1][1].running_mean.clone()
    for backbone in (ours, plain):
        backbone.network[1][1].train()
    run(ours, 0, x, folded)
    run(plain, 0, x, None)
    torch.testing.assert_close(ours.network[1][1].running_mean, plain.network[1][1].running_mean)
    assert not torch.equal(ours.network[1][1].running_mean, before)
    assert_same(ours, 0, folded)


def test_where_only_norms_are_trained_no_gradient_of_weights_is_computed() -> None:
    backbone = wrap(block(3, 4), block(4, 8))
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name.split(".")[-2] == "1")
    folded = FoldedTraining(backbone, 0)
    with folded.applied():
        assert "forward" not in backbone.network[0][0].__dict__
        assert backbone.network[0][2].__dict__["forward"] == _InPlaceReLU6.apply
    assert_same(backbone, 0, folded)


def test_a_hook_on_a_convolution_gets_the_output_of_the_convolution() -> None:
    backbone = wrap(block(3, 4), block(4, 8))
    folded = FoldedTraining(backbone, 0)
    x, outputs = torch.rand(2, 3, SIZE, SIZE).double(), []
    handle = backbone.network[0][0].register_forward_hook(lambda *call: outputs.append(call[-1].detach().clone()))
    run(backbone, 0, x, folded)
    handle.remove()
    torch.testing.assert_close(outputs[0], backbone.network[0][0](x).detach())


class TwoReaders(nn.Module):
    """A block whose convolution is read by its norm and by a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + self.norm(x)


def test_a_convolution_with_another_reader_is_not_folded() -> None:
    backbone = wrap(block(3, 4), TwoReaders())
    assert FoldedTraining(backbone, 0)._pairs == []


def test_a_norm_that_is_used_twice_is_not_folded() -> None:
    norm = nn.BatchNorm2d(4)
    first, second = (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), norm) for _ in range(2))
    backbone = wrap(block(3, 4), nn.Sequential(first, second))
    assert FoldedTraining(backbone, 0)._pairs == [(backbone.network[0][0], backbone.network[0][1])]


def test_relu6_in_place_has_the_gradient_of_relu6() -> None:
    values = torch.tensor([-1.0, 0.0, 1e-30, 3.0, 6.0, 7.0, float("inf")])
    leaf, naive = values.clone().requires_grad_(), values.clone().requires_grad_()
    x = leaf * 1
    y = _InPlaceReLU6.apply(x)
    assert y.data_ptr() == x.data_ptr()
    (y * torch.arange(1.0, 8.0)).sum().backward()
    (F.relu6(naive) * torch.arange(1.0, 8.0)).sum().backward()
    assert torch.equal(y.detach(), values.clamp(0, 6))
    assert torch.equal(leaf.grad, naive.grad)


def test_second_derivatives() -> None:
    backbone = wrap(block(3, 4), block(4, 8))
    folded = FoldedTraining(backbone, 0)
    x, weight = torch.rand(2, 3, SIZE, SIZE).double(), backbone.network[1][0].weight
    found = []
    for each in (None, folded):
        if each is None:
            features = backbone.tail(x, 0)
        else:
            with each.applied():
                features = backbone.tail(x, 0)
        (slope,) = torch.autograd.grad(features.pow(3).sum(), weight, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), weight)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": (5, 7), "padding": (0, 3)},
        {"kernel_size": 5, "padding": "same"},
        {"kernel_size": 5, "padding": 2, "stride": 2},
        {"kernel_size": 5, "padding": 4, "dilation": 2},
    ],
)
def test_large_depthwise_convolutions(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []

    def count(*arguments: Any) -> Tensor:
        calls.append(_find_depthwise_slope(*arguments))
        return calls[-1]

    monkeypatch.setattr("transfer.backbones.folding._find_depthwise_slope", count)
    backbone = wrap(block(3, 4), block(4, 4, groups=4, **options)).float()
    assert_same(backbone, 0, FoldedTraining(backbone, 0), 1e-5)
    assert len(calls) == ("stride" not in options and "dilation" not in options)


def test_in_bfloat16_depthwise_convolutions_with_strides_stay_float32() -> None:
    stages = block(3, 8), block(8, 8, groups=8, padding=1, stride=2), block(8, 8, groups=8, padding=1)
    backbone = wrap(*stages).float()
    folded = FoldedTraining(backbone, 0)
    outputs: list[torch.dtype] = []
    handles = [
        backbone.network[i][1].register_forward_hook(lambda *call: outputs.append(call[-1].dtype)) for i in range(3)
    ]
    x = torch.rand(2, 3, SIZE, SIZE)
    expected, slopes = run(backbone, 0, x, None)
    outputs.clear()
    with torch.autocast("cpu", torch.bfloat16):
        got, rounded = run(backbone, 0, x, folded)
    for handle in handles:
        handle.remove()
    assert outputs == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert float((got - expected).norm()) <= 0.02 * float(expected.norm())
    for name, slope in slopes.items():
        assert rounded[name].dtype == torch.float32
        assert float((rounded[name] - slope).norm()) <= 0.1 * float(slope.norm()), name
