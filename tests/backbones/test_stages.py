import subprocess
import sys

import pytest
import torch
from torch import nn

from transfer.backbones import stages
from transfer.backbones.registry import resolve
from transfer.backbones.stages import BuildOnMeta, read_stages

EXPECTED = {
    "mobilenetv2_100": ["stem", *(f"blocks.{i}" for i in range(7)), "conv_head"],
    "resnet50": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "tf_efficientnetv2_b0": ["stem", *(f"blocks.{i}" for i in range(6)), "conv_head"],
    "convnext_atto_ols": ["stem", "stages.0", "stages.1", "stages.2", "stages.3"],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in range(1, 5))],
    "regnety_002": ["stem", "s1", "s2", "s3", "s4"],
    "dm_nfnet_f0": ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "final_conv"],
    "vgg11": ["stem", "features.3", "features.6", "features.11", "features.16", "pre_logits"],
    "inception_v3": ["stem", "Mixed_5b", "Mixed_6a", "Mixed_7a"],
    "torchvision:squeezenet1_1": ["stem", "features.3", "features.6", "features.9"],
    "torchvision:shufflenet_v2_x0_5": ["stem", "stage2", "stage3", "stage4", "conv5"],
    "torchvision:googlenet": ["stem", "inception3a", "inception4a", "inception5a"],
    "torchvision:efficientnet_b0": ["stem", *(f"features.{i}" for i in range(1, 9))],
    "torchvision:regnet_x_400mf": ["stem", *(f"trunk_output.block{i}" for i in range(1, 5))],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_stages_are_what_the_provider_names_in_sequence(name):
    provider, full = resolve(name)
    with BuildOnMeta():
        network = provider.build(full)
    found, _ = read_stages(network, provider.preprocessing(full).input_size)
    assert [stage.name for stage in found] == EXPECTED[name]


def test_meta_tensors_are_not_initialised_for_which_sympy_would_be_imported():
    code = """
import sys
import torch
from torch import nn
from transfer.backbones.stages import BuildOnMeta
with BuildOnMeta():
    layer = nn.Linear(3, 2)
    assert nn.init.normal_(layer.weight, 0, 1) is nn.init.zeros_(tensor=layer.weight) is layer.weight
    nn.init.xavier_normal_(layer.weight)
    assert torch.arange(3).mul_(2).tolist() == [0, 2, 4]
assert layer.weight.is_meta and 'sympy' not in sys.modules
assert not nn.Linear(3, 2).weight.is_meta
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pooling_ends_the_stage_before_it():
    provider, full = resolve("torchvision:squeezenet1_1")
    with BuildOnMeta():
        found, width = read_stages(provider.build(full), (3, 224, 224))
    assert [stage.modules[-1] for stage in found] == ["features.2", "features.5", "features.8", "classifier"]
    assert width == 512


class _Small(nn.Module):
    """Stem, two groups, head; defined in another order than they run, and with an unused layer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(8, 16, 1)
        self.unused = nn.Linear(3, 3)
        group = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1)]
        self.second = nn.Sequential(*group)
        self.first = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x)))).mean((2, 3))


def test_order_is_that_of_execution():
    found, width = read_stages(_Small(), (3, 32, 32))
    assert [stage.name for stage in found] == ["stem", "first", "second", "head"]
    assert width == 16


def test_reading_leaves_the_network_as_it_was():
    network = _Small().train()
    network.second.eval()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    read_stages(network, (3, 32, 32))
    assert network.training
    assert not network.second[1].training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert not network.stem._forward_hooks


def test_a_network_of_one_resolution_is_opened():
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)) for _ in range(3)]
    network = nn.Sequential()
    network.add_module("patch", nn.Conv2d(3, 8, 4, stride=4))
    network.add_module("blocks", nn.Sequential(*blocks))
    network.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    found, _ = read_stages(network, (3, 32, 32))
    assert [stage.name for stage in found] == ["stem", "blocks.0", "blocks.1", "blocks.2"]


def test_features_must_be_pooled():
    with pytest.raises(ValueError, match="expected pooled features"):
        read_stages(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 8, 8))


def test_weight_layers_counts_layers_with_a_matrix():
    assert stages.count_weight_layers(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Linear(1, 1))) == 2
