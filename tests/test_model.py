import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.model import TransferModel

NAMES = ["test_resnet", "test_efficientnet", "test_convnext", "test_nfnet", "resnet18", "mobilenetv3_small_050"]
NAMES += ["torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"]
SPECS = [HeadSpec("object", classes=("a", "b", "c")), HeadSpec("age", "regression", centre=5.0, spread=2.0)]


def pixels(n: int = 5, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model_of(backbone: Backbone) -> TransferModel:
    torch.manual_seed(0)
    return TransferModel(backbone, Heads(SPECS, backbone.width)).eval()


def normalised(images: Tensor, backbone: Backbone) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    return (images.float() / 255 - mean) / std


@pytest.mark.parametrize("name", NAMES)
def test_trunk_then_forward_is_the_whole_network_at_every_cut(small: Callable[..., Backbone], name: str) -> None:
    backbone = small(name)
    model = model_of(backbone)
    x = pixels()
    exact = 4e-6 if name == "test_nfnet" else 1e-6  # it standardises its weights: some processors round more
    with torch.no_grad():
        whole = backbone(normalised(x, backbone))
        for cut in range(len(backbone.stages) + 1):
            if not backbone.can_cut(cut):
                continue
            model.cut = cut
            activation = model.trunk(x)
            features = model.features(activation)
            assert features.shape == (5, backbone.width)
            assert features.dtype == torch.float32
            # float16 keeps 11 bits; the layers above may make some ten times as much of that.
            tolerance = exact if cut in (0, len(backbone.stages)) else 2**-11 * 10
            assert float((features - whole).abs().max()) <= tolerance * float(whole.abs().max()), cut
            assert torch.equal(model(activation)["object"], model.heads(features)["object"])


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "torchvision:squeezenet1_1"])
def test_what_passes_each_cut(small: Callable[..., Backbone], name: str) -> None:
    """Images as they are, float16 inside, float32 features on top; and forward goes on from just that."""
    backbone = small(name)
    model = model_of(backbone)
    x, n = pixels(), len(backbone.stages)
    with torch.no_grad():
        for cut in range(n + 1):
            model.cut = cut
            activation = model.trunk(x)
            assert activation.dtype == (torch.uint8 if cut == 0 else torch.float32 if cut == n else torch.float16)
            if cut == 0:
                assert activation is x
            elif cut < n:
                exact = backbone.trunk(normalised(x, backbone), cut)
                assert torch.allclose(activation.float(), exact, rtol=2**-10, atol=1e-5)
                assert torch.allclose(model.features(activation), backbone.tail(activation.float(), cut), atol=1e-5)


@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "partial:3"])
def test_an_activation_does_not_depend_on_the_batch(small: Callable[..., Backbone], policy: str) -> None:
    model = model_of(small("mobilenetv3_small_050"))
    model.freeze(freeze.plan(policy, model.backbone).phases[0])
    x = pixels(150)  # more than one chunk
    whole = model.trunk(x)
    for size in (1, 7, 64):
        assert torch.equal(torch.cat([model.trunk(some) for some in x.split(size)]), whole)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.trunk(x[order]), whole[order])


def test_the_ready_trunk_is_made_once_and_anew_when_a_weight_changes(small: Callable[..., Backbone]) -> None:
    backbone = small()
    model = model_of(backbone)
    model.freeze(freeze.plan("partial:1", backbone).phases[0])
    x = pixels()
    before, ready = model.trunk(x), model.get_trunk()
    assert model.get_trunk() is ready
    with torch.no_grad():
        next(backbone.network.parameters()).mul_(1.5)
    assert model.get_trunk() is not ready
    assert not torch.equal(model.trunk(x), before)
    ready = model.get_trunk()
    model.freeze(freeze.plan("partial:2", backbone).phases[0])
    assert model.get_trunk() is not ready


def test_the_key_of_compiled_stages_is_made_once_and_anew_when_a_weight_changes(
    small: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = small()
    model = model_of(backbone)
    model.freeze(freeze.plan("linear_probe", backbone).phases[0])
    keys = []
    monkeypatch.setattr("transfer.model.choose_engine", lambda *_: "onnxruntime")
    monkeypatch.setattr("transfer.model.is_compiled", lambda _, key: not keys.append(key))
    assert (model.engine, model.engine) == ("onnxruntime", "onnxruntime")
    assert keys[0] is keys[1]
    with torch.no_grad():
        next(backbone.network.parameters()).mul_(1.5)
    assert model.engine == "onnxruntime"
    assert keys[2].weights != keys[0].weights
    backbone.preprocessing = backbone.preprocessing.at_size(48)
    assert model.engine == "onnxruntime"
    assert (keys[3].shape, keys[3].weights) == ((3, 48, 48), keys[2].weights)


def test_the_trunk_gives_no_gradient_the_tail_does(small: Callable[..., Backbone]) -> None:
    model = model_of(small())
    model.freeze(freeze.plan("partial:1", model.backbone).phases[0])
    activation = model.trunk(pixels())
    assert not activation.requires_grad
    model(activation)["object"].sum().backward()
    with_gradient = {
        model.backbone.stage_of(n) for n, p in model.backbone.network.named_parameters() if p.grad is not None
    }
    assert with_gradient == {4}


def test_large_activations_do_not_become_infinite(small: Callable[..., Backbone]) -> None:
    model = model_of(small())
    model.cut = 2
    with torch.no_grad():
        for module in model.backbone.network.layer1.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1e6)
        activation = model.trunk(pixels())
    assert float(activation.abs().max()) == torch.finfo(torch.float16).max
    assert model(activation)["object"].isfinite().all()


@pytest.mark.parametrize(
    ("policy", "cut"),
    [("linear_probe", 5), ("partial:1", 4), ("partial:2", 3), ("full", 0), ("surgical:last", 3), ("norm_only", 0)],
)
def test_the_plan_decides_the_cut(small: Callable[..., Backbone], policy: str, cut: int) -> None:
    model = model_of(small())
    model.freeze(freeze.plan(policy, model.backbone).phases[0])
    assert model.cut == cut


def test_the_next_lower_cut_where_the_network_allows_none(
    small: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = small()
    model = model_of(backbone)
    phase = freeze.plan("partial:1", backbone).phases[0]
    monkeypatch.setattr(backbone, "can_cut", lambda cut: cut in (0, 2, 5))
    model.freeze(phase)
    assert model.cut == 2
    monkeypatch.setattr(backbone, "can_cut", lambda cut: cut in (0, 5))
    model.freeze(phase)
    assert model.cut == 0
    assert not model.backbone.network.layer1.training  # frozen all the same


def test_freeze_decides_what_needs_gradients(small: Callable[..., Backbone]) -> None:
    model = model_of(small())
    for policy, first in (("partial:2", 3), ("full", 0), ("linear_probe", 5)):
        model(model.trunk(pixels()))["object"].sum().backward()
        model.freeze(freeze.plan(policy, model.backbone).phases[0])
        for name, p in model.backbone.network.named_parameters():
            assert p.requires_grad == (model.backbone.stage_of(name) >= first)
            assert p.grad is None
        assert all(p.requires_grad for p in model.heads.parameters())


def test_freeze_keeps_the_mode(small: Callable[..., Backbone]) -> None:
    model = model_of(small())
    phase = freeze.plan("partial:1", model.backbone).phases[0]
    model.train().freeze(phase)
    assert model.training
    assert model.backbone.network.layer4.training
    model.eval().freeze(phase)
    assert not any(module.training for module in model.modules())


def test_what_was_held_is_let_go_by_the_next_phase(small: Callable[..., Backbone]) -> None:
    model = model_of(small()).train()
    model.freeze(freeze.plan("linear_probe", model.backbone).phases[0])
    assert not any(module.training for module in model.backbone.network.layer4.modules())
    model.freeze(freeze.plan("full", model.backbone).phases[0])
    assert all(module.training for module in model.backbone.network.modules())


def test_predict(small: Callable[..., Backbone]) -> None:
    model = model_of(small()).train()
    x = pixels()
    answers = model.predict(x)
    with torch.no_grad():
        features = model.backbone.eval()(normalised(x, model.backbone))
        out = model.heads(features)
    assert not model.training
    assert torch.allclose(answers["object"], out["object"].softmax(1), atol=1e-5)
    assert answers["object"].sum(1).tolist() == pytest.approx([1.0] * 5)
    assert answers["age"].tolist() == pytest.approx((out["age"] * 2 + 5).tolist(), rel=1e-4)


def test_the_state_holds_backbone_and_heads_and_nothing_else(small: Callable[..., Backbone]) -> None:
    model = model_of(small())
    names = set(model.state_dict())
    assert names == {f"backbone.network.{n}" for n in model.backbone.network.state_dict()} | {
        f"heads.{n}" for n in model.heads.state_dict()
    }


def test_norms_are_folded_in_training_steps_only(small: Callable[..., Backbone]) -> None:
    model = model_of(small("resnet18"))
    model.freeze(freeze.plan("partial:2", model.backbone).phases[0])
    x = model.trunk(pixels())
    model.features(x)
    with torch.no_grad():
        model.train().features(x)
    assert model._folded is None
    model.features(x).sum().backward()
    assert model._folded is not None
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert pickle.loads(pickle.dumps(model))._folded is None
    other = copy.deepcopy(model)
    torch.testing.assert_close(other.features(x), model.backbone.tail(x.float(), model.cut))
    model.freeze(freeze.plan("partial:3", model.backbone).phases[0])
    assert model._folded is None
