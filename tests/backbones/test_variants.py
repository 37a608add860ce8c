from pathlib import Path

import pytest
import torch
from torch import nn

from transfer.backbones import load
from transfer.backbones.trunk import Trunk
from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone, pool_mean
from transfer.errors import TransferError

SHARED = Path(__file__).parents[3] / "shared" / "weights"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/weights beside the checkout")
NAMES = ("resnet10t", "mobilenetv2_050", "densenet121", "convnext_atto", "torchvision:squeezenet1_1")


def _images(backbone):
    side = backbone.preprocessing.input_size[1]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_network_returns_the_mean_of_its_last_stage(name):
    whole, short = load(name, random_init=True), TruncatedBackbone(load(name, random_init=True), 1)
    images = _images(whole)
    with torch.no_grad():
        expected = whole.trunk(images, len(whole.stages) - 1).mean((2, 3))
        assert torch.equal(short(images), expected)
    assert short.width == expected.shape[1]
    assert short.stages == whole.stages[:-1]
    assert (short.dropped, short.original_classifier) == ((whole.stages[-1].name,), None)


def test_dropped_stages_are_removed_and_the_others_keep_their_names():
    whole, short = load("resnet10t", random_init=True), TruncatedBackbone(load("resnet10t", random_init=True), 2)
    kept = {name for name in whole.state_dict() if whole.stage_of(name.removeprefix("network.")) < 3}
    assert set(short.state_dict()) == kept
    assert short.fingerprint != whole.fingerprint


@pytest.mark.parametrize("drop", [0, 5, 6, -1])
def test_one_stage_at_least_goes_and_one_stays(drop):
    with pytest.raises(TransferError, match=f"^{drop} of 5 stages of resnet10t cannot be dropped: between 1 and 4 can"):
        TruncatedBackbone(load("resnet10t", random_init=True), drop)


def test_a_truncated_network_is_cut_trained_and_folded_like_any_other():
    short = TruncatedBackbone(load("resnet10t", random_init=True), 2)
    images = _images(short)
    assert [short.can_cut(cut) for cut in range(4)] == [True] * 4
    with torch.no_grad():
        assert torch.equal(short.tail(short.trunk(images, 2), 2), short(images))
    short.tail(short.trunk(images, 2).detach(), 2).sum().backward()
    learnt = {short.stage_of(name) for name, p in short.network.named_parameters() if p.grad is not None}
    assert learnt == {2}
    pixels = torch.randint(0, 256, (2, 3, 176, 176), dtype=torch.uint8)
    for cut in (2, 3):
        with torch.no_grad():
            plain = short.trunk(short.preprocessing.normalise(pixels), cut)
        torch.testing.assert_close(Trunk(short, cut)(pixels), plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_pooled_and_the_last_is_the_networks_own(name):
    whole, stacked = load(name, random_init=True), AllStagesBackbone(load(name, random_init=True))
    images = _images(whole)
    with torch.no_grad():
        features = stacked(images)
        assert torch.equal(features[:, stacked.layout[stacked.stages[-1].name]], whole(images))
        for drop in (1, len(whole.stages) - 1):
            short = TruncatedBackbone(load(name, random_init=True), drop)
            assert torch.equal(features[:, stacked.layout[short.stages[-1].name]], short(images))
    assert list(stacked.layout) == [stage.name for stage in whole.stages]
    assert features.shape == (2, stacked.width)
    assert sum(columns.stop - columns.start for columns in stacked.layout.values()) == stacked.width


def test_norms_are_seen_as_they_are_given():
    backbone = load("resnet10t", random_init=True)
    stacked = AllStagesBackbone(load("resnet10t", random_init=True), with_statistics=True)
    images, given = _images(backbone), {}
    assert [path.partition(".")[0] for path in stacked.norms] == ["bn1", "layer1", "layer2", "layer3", "layer4"]
    for path in stacked.norms:
        module = backbone.network.get_submodule(path)
        module.register_forward_pre_hook(lambda _, x, path=path: given.update({path: x[0]}))
    with torch.no_grad():
        backbone(images)
        seen = stacked(images)
    for path, x in given.items():
        torch.testing.assert_close(seen[:, stacked.layout[f"mean {path}"]], x.mean((2, 3)))
        torch.testing.assert_close(seen[:, stacked.layout[f"square {path}"]], (x**2).mean((2, 3)))


def test_a_folded_trunk_does_not_change_the_norms_inputs():
    stacked = AllStagesBackbone(load("resnet10t", random_init=True), with_statistics=True).eval()
    for module in stacked.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.5)
            module.running_var.fill_(4.0)
    pixels = torch.randint(0, 256, (2, 3, 176, 176), dtype=torch.uint8)
    with torch.no_grad():
        expected = stacked(stacked.preprocessing.normalise(pixels))
    torch.testing.assert_close(Trunk(stacked, len(stacked.stages))(pixels), expected, rtol=1e-3, atol=1e-3)


@real
@pytest.mark.parametrize("name", ["mobilenetv2_100", "torchvision:squeezenet1_1"])
def test_the_original_classifier_answers_too(name, monkeypatch):
    import timm
    from safetensors.torch import load_file
    from torchvision.models import squeezenet1_1

    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED))
    stacked = AllStagesBackbone(load(name, classifier="any"), with_statistics=True)
    file = SHARED / f"{name.removeprefix('torchvision:')}.safetensors"
    reference = squeezenet1_1() if name.startswith("torchvision") else timm.create_model(name)
    reference.load_state_dict(load_file(file))
    images = _images(stacked)
    with torch.no_grad():
        logits = stacked(images)[:, stacked.layout["logits"]]
        torch.testing.assert_close(logits, reference.eval()(images), rtol=1e-4, atol=1e-4)


def test_modes_are_left_alone():
    backbone = load("resnet10t", random_init=True).train()
    backbone.network.layer2.eval()
    stacked = AllStagesBackbone(backbone)
    assert stacked.network.layer1.training
    assert not stacked.network.layer2.training


@pytest.mark.parametrize(
    ("shape", "axes"), [((2, 3, 5, 5), (2, 3)), ((2, 5, 5, 3), (1, 2)), ((2, 9, 3), (1,)), ((2, 3), ())]
)
def test_pooling_takes_the_mean_over_places(shape, axes):
    x = torch.randn(shape)
    assert torch.equal(pool_mean(x), x.mean(axes) if axes else x)
    assert torch.equal(pool_mean([x, x]), torch.cat([pool_mean(x)] * 2, 1))
