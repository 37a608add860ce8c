import pytest
import timm
from timm.models import _registry

from transfer.backbones import catalogue
from transfer.backbones.catalogue import format_provider_versions
from transfer.backbones.providers.cnn_families import ATTENTION, CNN, NOT_CNN, is_cnn


def _pretrained_modules():
    architectures = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    return {_registry._model_to_module[a] for a in architectures}


def test_every_timm_module_with_pretrained_weights_is_in_one_list():
    undecided = _pretrained_modules() - CNN - NOT_CNN
    assert not undecided, f"say in families.py whether these are CNNs: {sorted(undecided)}"
    assert not CNN & NOT_CNN


def test_no_listed_module_is_gone_from_timm():
    if format_provider_versions() != catalogue.TABLE.read_text().splitlines()[0].removeprefix("# "):
        pytest.skip("the lists were made for other versions of timm and torchvision")
    assert set(_registry._model_to_module.values()) >= CNN | NOT_CNN


def test_networks_with_self_attention_are_left_out():
    assert is_cnn("resnet", "resnet50")
    assert is_cnn("metaformer", "convformer_s18")
    assert not is_cnn("metaformer", "caformer_s18")
    assert not is_cnn("vision_transformer", "vit_base_patch16_224")
    assert not is_cnn("a_module_of_tomorrow", "resnet50")


def test_every_exception_matches_a_model():
    for pattern in ATTENTION:
        assert timm.list_models(pattern), pattern
