import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from transfer.backbones import Backbone, load
from transfer.backbones.backbone import ConvClassifier
from transfer.data.images.preprocessing import Preprocessing

SHARED = Path(__file__).parents[3] / "shared" / "weights"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/weights beside the checkout")

# Architecture and width of its pooled features.
NETWORKS = {
    "resnet10t": 512,
    "mobilenetv2_050": 1280,
    "mobilenetv3_small_050": 1024,
    "efficientnet_b0": 1280,
    "regnety_002": 368,
    "densenet121": 1024,
    "convnext_atto": 320,
    "ghostnet_100": 1280,
    "dla46_c": 256,
    "resnetv2_18": 512,
    "repvgg_a0": 1280,
    "test_nfnet": 192,
    "torchvision:squeezenet1_1": 512,
    "torchvision:mobilenet_v2": 1280,
    "torchvision:shufflenet_v2_x0_5": 1024,
    "torchvision:googlenet": 1024,
    "torchvision:mnasnet0_5": 1280,
    "torchvision:mobilenet_v3_small": 1024,
}
SMALL = "resnet10t"
PLAIN = Preprocessing((3, 64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0)


def _images(side=96, n=2):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_and_cuts(name):
    backbone = load(name, random_init=True)
    # 1. every parameter and buffer belongs to one stage, and to the one whose modules hold it
    network = backbone.network
    inside = [
        {id(t) for path in stage.modules for t in network.get_submodule(path).state_dict(keep_vars=True).values()}
        for stage in backbone.stages
    ]
    for key, tensor in network.state_dict(keep_vars=True).items():
        holders = [i for i, tensors in enumerate(inside) if id(tensor) in tensors]
        assert holders == [backbone.stage_of(key)], key
    # 2. width, and tail after trunk is the whole, bit for bit, at every cut
    images = _images()
    with torch.no_grad():
        whole = backbone(images)
        assert whole.shape == (2, backbone.width) == (2, NETWORKS[name])
        for cut in range(len(backbone.stages) + 1):
            assert backbone.can_cut(cut), cut
            assert torch.equal(backbone.tail(backbone.trunk(images, cut), cut), whole), cut


def test_the_ends_are_the_images_and_the_features():
    backbone = load(SMALL, random_init=True)
    images = _images()
    assert backbone.trunk(images, 0) is images
    features = backbone.trunk(images, len(backbone.stages))
    assert torch.equal(features, backbone(images))
    assert backbone.tail(features, len(backbone.stages)) is features
    with pytest.raises(ValueError, match="not between 0 and the 5 stages"):
        backbone.can_cut(6)


def test_the_trunk_does_not_run_in_the_tail_nor_the_tail_in_the_trunk():
    backbone = load(SMALL, random_init=True)
    ran = []
    for path in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        backbone.network.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: ran.append(path))
    assert backbone.can_cut(3)
    ran.clear()
    activation = backbone.trunk(_images(), 3)
    assert ran == ["conv1", "layer1", "layer2"]
    counted = []
    backbone.network.layer1[0].register_forward_pre_hook(lambda *_: counted.append(1))
    backbone.tail(activation, 3)
    assert not counted


class _Skips(nn.Module):
    """A network whose last stage looks back at its stem."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.one, self.two = (nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)) for _ in range(2))
        self.scale = nn.Parameter(torch.zeros(1))  # as zero-initialised residuals are: numbers alone prove nothing

    def forward(self, x):
        stem = self.stem(x)
        return (self.two(self.one(stem)) + self.scale * stem).mean((2, 3))


def test_a_network_that_is_no_chain_is_detected():
    backbone = Backbone("skips", _Skips(), PLAIN).eval()
    assert [backbone.can_cut(cut) for cut in range(4)] == [True, True, False, True]
    with pytest.raises(ValueError, match="skips cannot be cut before two"):
        backbone.trunk(_images(), 2)
    with pytest.raises(ValueError, match="cannot be cut before two"):
        backbone.tail(_images(), 2)


class _Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.split = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)) for _ in range(2))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return sum(branch(x) for branch in self.split).mean((2, 3))


def test_a_functional_step_belongs_to_the_tail_and_branches_are_not_cut():
    backbone = Backbone("lists", _Lists(), PLAIN).eval()
    assert [backbone.can_cut(cut) for cut in range(4)] == [True, True, False, True]
    images = _images(8)
    assert torch.equal(backbone.tail(backbone.trunk(images, 1), 1), backbone(images))


class _InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.group = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.last(self.group(self.stem(x).relu_())).mean((2, 3))


def test_a_tail_that_would_write_into_its_input_is_not_cut():
    backbone = Backbone("in place", _InPlace(), PLAIN).eval()
    assert [backbone.can_cut(cut) for cut in range(4)] == [True, False, True, True]


def test_high_resolution_nets_are_cut_only_where_one_tensor_passes():
    backbone = load("hrnet_w18_small", random_init=True)
    assert backbone.can_cut(1)
    assert not backbone.can_cut(3)


def test_cuttable_leaves_modes_and_statistics_alone():
    backbone = load(SMALL, random_init=True).train()
    backbone.network.layer2.eval()
    before = backbone.fingerprint
    assert backbone.can_cut(2)
    assert backbone.fingerprint == before
    assert backbone.network.layer1.training
    assert not backbone.network.layer2.training


def test_the_tail_follows_modes_weights_and_gradients():
    backbone = load(SMALL, random_init=True)
    images = _images()
    activation = backbone.trunk(images, 3).detach()
    evaluated = backbone.tail(activation, 3)
    backbone.network.layer4.train()
    seen = backbone.network.layer4[0].bn1.num_batches_tracked.item()
    assert not torch.equal(backbone.tail(activation, 3), evaluated)  # batch statistics
    assert backbone.network.layer4[0].bn1.num_batches_tracked.item() == seen + 1
    backbone.eval()
    with torch.no_grad():
        backbone.network.layer3[0].conv1.weight.mul_(2)
    assert torch.equal(backbone.tail(activation, 3), backbone(images))
    backbone.tail(activation, 3).sum().backward()
    with_gradient = {backbone.stage_of(name) for name, p in backbone.network.named_parameters() if p.grad is not None}
    assert with_gradient == {3, 4}


def test_functional_dropout_in_the_tail_reads_the_mode():
    network = timm.create_model("resnet10t", num_classes=0, drop_rate=0.5)
    backbone = Backbone("dropout", network, PLAIN).train()
    activation = torch.ones(4, 64, 16, 16)
    for module in backbone.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(0)
    dropped = (backbone.tail(activation, 2) == 0).float().mean()
    assert dropped > 0.3
    assert (backbone.eval().tail(activation, 2) == 0).float().mean() < dropped


def test_a_deep_copy_is_independent():
    backbone = load(SMALL, random_init=True)
    images = _images()
    assert backbone.can_cut(2)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.network.conv1[0].weight.zero_()
    assert not torch.equal(twin(images), backbone(images))
    assert torch.equal(twin.tail(twin.trunk(images, 2), 2), twin(images))


def test_stage_of_modules():
    backbone = load("mobilenetv2_050", random_init=True)
    assert backbone.stage_of("blocks.3.0.bn1") == 4
    assert backbone.stage_of("bn1") == 0
    for spanning in ("", "blocks", "no such"):
        with pytest.raises(KeyError):
            backbone.stage_of(spanning)


def test_a_module_never_called_belongs_to_the_one_defined_before_it():
    network = _Skips()
    network.stem.unused = nn.Linear(2, 2)
    network.loose = nn.Linear(2, 2)
    backbone = Backbone("spare", network, PLAIN)
    assert backbone.stage_of("stem.unused.weight") == 0
    assert backbone.stage_of("loose.weight") == 2
    assert backbone.stage_of("scale") == 0


def test_fingerprint():
    backbone = load(SMALL, random_init=True)
    first = backbone.fingerprint
    assert load(SMALL, random_init=True).fingerprint == first
    assert load(SMALL, random_init=True, seed=1).fingerprint != first
    backbone.network.bn1.running_mean[0] += 1  # a buffer counts
    assert backbone.fingerprint != first
    backbone.network.bn1.running_mean[0] = 0
    assert backbone.fingerprint == first
    backbone.preprocessing = PLAIN
    assert backbone.fingerprint != first


def test_fingerprint_tells_architectures_with_the_same_tensors_apart():
    ours, theirs = (load(name, random_init=True) for name in ("efficientnet_b0", "tf_efficientnet_b0"))
    theirs.network.load_state_dict(ours.network.state_dict())
    theirs.preprocessing = ours.preprocessing
    assert ours.fingerprint != theirs.fingerprint  # another padding


def test_a_conv_classifier_is_a_rectified_convolution_averaged_over_positions():
    convolution = nn.Conv2d(5, 7, 1)
    linear = nn.Linear(5, 7)
    linear.load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    maps = torch.randn(2, 5, 3, 4)
    expected = torch.relu(convolution(maps)).mean((2, 3))
    torch.testing.assert_close(ConvClassifier(linear)(maps), expected)
    assert not torch.allclose(linear(maps.mean((2, 3))), expected)  # pooled first, the result differs
