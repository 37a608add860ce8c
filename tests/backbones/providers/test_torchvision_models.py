import math

import pytest
import torch
import torchvision
from torch import nn

from transfer.backbones.providers.base import ClassifierLayout
from transfer.backbones.providers.torchvision_models import TorchvisionModels, _read_weights

provider = TorchvisionModels()

# One of each family, and the module under whose input the features are: what its last linear layer sees.
FAMILIES = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "regnet_x_400mf": "fc",
    "resnet18": "fc",
    "shufflenet_v2_x0_5": "fc",
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_features_are_what_the_classifier_sees(architecture):
    path = FAMILIES[architecture]
    options = {"aux_logits": True, "init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    reference = torchvision.models.get_model(architecture, **options).eval()
    seen = []
    reference.get_submodule(path).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network = provider.build(f"torchvision:{architecture}").eval()
    layout = provider.classifier_layout(f"torchvision:{architecture}", network)
    state = reference.state_dict()
    for key in layout.keys:
        state.pop(key, None)
    network.load_state_dict(state)  # strict
    assert layout.path == path
    assert layout.pooled
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        reference(images)
        assert torch.equal(network(images), seen[-1])


def test_squeezenet_classifies_before_it_pools():
    network = provider.build("torchvision:squeezenet1_1")
    layout = ClassifierLayout(frozenset(("classifier.1.weight", "classifier.1.bias")), "classifier.1", pooled=False)
    assert provider.classifier_layout("torchvision:squeezenet1_1", network) == layout


def test_dropout_goes_with_the_classifier_and_no_other():
    left = [m for m in provider.build("torchvision:alexnet").modules() if isinstance(m, nn.Dropout)]
    assert len(left) == 2
    assert not [m for m in provider.build("torchvision:googlenet").modules() if type(m) is nn.Dropout]


def test_inceptions_change_of_normalisation_is_in_its_preprocessing():
    images = torch.rand(1, 3, 75, 75)
    record = provider.preprocessing("torchvision:googlenet")
    preset = torchvision.models.GoogLeNet_Weights.DEFAULT.transforms()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preset.mean, preset.std))
    published = torchvision.models.googlenet(init_weights=False, transform_input=True)
    theirs = published._transform_input((images - mean) / std)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (record.mean, record.std))
    torch.testing.assert_close((images - mean) / std, theirs)


def test_every_preset_becomes_a_record_of_the_same_sizes():
    for name in provider.names():
        preset, record = _read_weights(name).transforms(), provider.preprocessing(name)
        assert record.input_size == (3, preset.crop_size[0], preset.crop_size[0])
        assert math.floor(record.input_size[1] / record.crop_pct) == preset.resize_size[0], name
        assert record.interpolation == preset.interpolation.value


def test_names_have_tags_and_the_default_comes_first():
    names = [n for n in provider.names() if n.startswith("torchvision:resnet50.")]
    assert names == ["torchvision:resnet50.IMAGENET1K_V2", "torchvision:resnet50.IMAGENET1K_V1"]
    assert provider.knows("torchvision:resnet50")
    assert provider.knows("torchvision:resnet50.IMAGENET1K_V1")
    assert not provider.knows("resnet50")
    assert not provider.knows("torchvision:vit_b_16")
    assert provider.source("torchvision:resnet50.IMAGENET1K_V1").endswith("resnet50-0676ba61.pth")


def test_published_densenet_keys_are_brought_up_to_date():
    network = provider.build("torchvision:densenet121")
    key = "features.denseblock1.denselayer1.norm1.weight"
    assert key in network.state_dict()
    old = {"features.denseblock1.denselayer1.norm.1.weight": torch.ones(1)}
    assert list(provider.rename_keys("torchvision:densenet121", network, old)) == [key]
