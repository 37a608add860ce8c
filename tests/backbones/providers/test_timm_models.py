import timm

from transfer.backbones.providers.base import ClassifierLayout
from transfer.backbones.providers.timm_models import TimmModels

provider = TimmModels()


def test_names_are_timms_and_the_default_tag_comes_first():
    names = provider.names()
    assert set(names) <= set(timm.list_models(pretrained=True))
    first = {}
    for name in names:
        first.setdefault(name.partition(".")[0], name)
    for architecture in ("resnet50", "mobilenetv2_100", "convnext_tiny"):
        default = timm.get_pretrained_cfg(architecture).tag
        assert first[architecture] == f"{architecture}.{default}"


def test_knows():
    assert provider.knows("resnet50")
    assert provider.knows("resnet50.a1_in1k")
    assert not provider.knows("resnet50.nothing")
    assert not provider.knows("vit_base_patch16_224")


def test_the_classifier_in_a_weights_file():
    network = provider.build("mobilenetv2_050")
    keys = frozenset(("classifier.weight", "classifier.bias"))
    assert provider.classifier_layout("mobilenetv2_050", network) == ClassifierLayout(keys, "classifier")


def test_preprocessing_is_that_of_the_tag():
    a1, tv = (provider.preprocessing(f"resnet50.{tag}") for tag in ("a1_in1k", "tv_in1k"))
    assert (a1.interpolation, tv.interpolation) == ("bicubic", "bilinear")
    assert provider.preprocessing("inception_v3").input_size == (3, 299, 299)


def test_sources():
    assert provider.source("resnet50.a1_in1k") == "hf:timm/resnet50.a1_in1k"
    assert provider.source("legacy_xception.tf_in1k").startswith("https://github.com/")


def test_licences_are_timms_in_the_case_of_spdx():
    assert provider.licence("resnet50.a1_in1k") == "Apache-2.0"
    assert provider.licence("convnext_tiny.dinov3_lvd1689m") == "dinov3-license"
    for name in ("mobilenetv2_100", "regnety_016.tv2_in1k", "convnext_tiny.fb_in1k"):
        assert provider.licence(name).lower() == timm.get_pretrained_cfg(name).license


def test_published_keys_are_rewritten_as_timm_does():
    network = provider.build("convnext_atto")
    own = network.state_dict()
    published = {f"module.{key}": tensor for key, tensor in own.items()}
    assert provider.rename_keys("convnext_atto", network, dict(own)).keys() == own.keys()
    assert provider.rename_keys("resnet18", provider.build("resnet18"), published).keys() == published.keys()


def test_a_classifier_of_several_layers_is_dropped_whole_and_not_taken_for_a_linear_one():
    layout = provider.classifier_layout("repvit_m0_9", provider.build("repvit_m0_9"))
    assert "head.head.bn.weight" in layout.keys
    assert layout.path == ""
