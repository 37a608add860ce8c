from pathlib import Path

import pytest
import timm
import torch

from transfer.backbones import load
from transfer.errors import TransferError

SHARED = Path(__file__).parents[3] / "shared" / "weights"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/weights beside the checkout")
SMALL = "resnet10t"


def _images(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_random_init_draws_from_its_seed_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load(SMALL, random_init=True, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TransferError, match="--random-init excludes a weights file"):
        load(SMALL, random_init=True, classifier=True)


@real
def test_real_mobilenet_is_timms_own(monkeypatch):
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED))
    backbone = load("mobilenetv2_100", classifier=True)
    file = SHARED / "mobilenetv2_100.safetensors"
    reference = timm.create_model("mobilenetv2_100", checkpoint_path=str(file)).eval()
    images = _images(224)
    with torch.no_grad():
        features = backbone(images)
        assert torch.equal(features, reference.forward_head(reference.forward_features(images), pre_logits=True))
        assert torch.equal(backbone.classifier(features), reference(images))
    assert backbone.weights == f"store {file}"
    assert backbone.preprocessing.interpolation == "bilinear"  # the record beside the file; timm's own says bicubic
    assert not any("classifier" in key for key in backbone.state_dict())
    assert sum(p.numel() for p in backbone.parameters()) == 2_223_872


@real
def test_real_squeezenet_is_torchvisions_own():
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_1

    file = SHARED / "squeezenet1_1.safetensors"
    backbone = load("torchvision:squeezenet1_1", weights=file)
    reference = squeezenet1_1()
    reference.load_state_dict(load_file(file))
    images = _images(224)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), reference.eval().features(images).mean((2, 3)))
    assert backbone.weights == f"file {file}"
    with pytest.raises(TransferError, match="has no linear classifier on pooled features"):
        load("torchvision:squeezenet1_1", store=SHARED, classifier=True)
    on_map = load("torchvision:squeezenet1_1", store=SHARED, classifier="any")
    assert on_map.classifier is None
    with torch.no_grad():
        torch.testing.assert_close(on_map.original_classifier(reference.features(images)), reference(images))


def test_any_classifier_may_be_none():
    assert load(SMALL, random_init=True, classifier="any").original_classifier is None


def test_another_image_size_keeps_the_stages_and_one_too_small_is_refused():
    own, larger = load(SMALL, random_init=True), load(SMALL, random_init=True, image_size=320)
    assert larger.preprocessing == own.preprocessing.at_size(320)
    assert larger.stages == own.stages
    assert larger.fingerprint != own.fingerprint
    assert larger(torch.randn(1, 3, 320, 320)).shape == (1, larger.width)
    cut = len(larger.stages) - 1
    assert larger.shape(cut)[1] > own.shape(cut)[1]
    with pytest.raises(TransferError, match=r"inception_v3 cannot process images of 20 x 20 pixels.*299"):
        load("inception_v3", random_init=True, image_size=20)
