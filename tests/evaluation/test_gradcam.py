from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state
from torch import nn

from transfer.backbones.providers.joined_models import join_backbones
from transfer.evaluation.gradcam import compute_gradcam
from transfer.heads.heads import Heads


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def naive(model, image, label, head="object"):
    """Selvaraju et al. 2017, equations 1 and 2, with each derivative taken as a difference quotient, one by one."""
    backbone = model.backbone
    last = backbone.network.get_submodule("layer4")
    captured = []
    with last.register_forward_hook(lambda m, i, o: captured.append(o.detach())), torch.no_grad():
        backbone(backbone.preprocessing.normalise(image))
    maps = captured[0].double()
    network = model.double()

    def score(changed):
        with last.register_forward_hook(lambda m, i, o: changed), torch.no_grad():
            features = backbone(backbone.preprocessing.normalise(image).double())
            x = (features - network.heads.centre) / network.heads.spread
            return float(network.heads.layers[f"head_{head}"](x)[0, label])

    _, channels, height, width = maps.shape
    total = np.zeros((height, width))
    for k in range(channels):
        slopes = []
        for i in range(height):
            for j in range(width):
                up, down = maps.clone(), maps.clone()
                up[0, k, i, j] += 1e-4
                down[0, k, i, j] -= 1e-4
                slopes.append((score(up) - score(down)) / 2e-4)
        total += np.mean(slopes) * maps[0, k].numpy()
    heat = np.maximum(total, 0)
    return heat / heat.max() if heat.max() else heat


def test_it_equals_its_definition(taught, pixels):
    model, _ = taught()
    with torch.no_grad():
        model.heads.layers["head_object"][-1].weight.normal_(generator=torch.Generator().manual_seed(3))
    classes = np.array([0, 2, 1])
    found = compute_gradcam(model.eval(), pixels, classes)
    assert found.shape == (3, 2, 2)
    np.testing.assert_allclose(found[1], naive(model, pixels[1:2], 2), atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_diverged_is_not_explained(taught, pixels, value):
    model, _ = taught()
    with torch.no_grad():
        model.heads.layers["head_object"][-1].weight[0] = value
    found = compute_gradcam(model, pixels, np.array([0, 0, 0]))
    assert (found == 0).all()


@pytest.mark.parametrize("policy", ["linear_probe", "full", "truncate:1", "head2toe"])
def test_maps_do_not_depend_on_the_batch_and_the_model_is_unchanged(taught, pixels, policy):
    model, plan = taught(policy)
    model.freeze(plan.phases[-1])
    before = copy_state(model)
    together = compute_gradcam(model, pixels, np.array([0, 1, 2]))
    apart = [compute_gradcam(model, pixels[i : i + 1], np.array([i]))[0] for i in range(3)]
    np.testing.assert_allclose(together, apart, atol=1e-4)
    assert together.min() >= 0
    assert together.max() <= 1
    assert not changed_names(before, model.state_dict())
    assert not any(len(module._forward_hooks) for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_without_feature_maps_it_returns_none(taught, pixels):
    model, _ = taught()
    backbone = model.backbone
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, backbone.width))
    stage = SimpleNamespace(modules=("0", "1", "2"))
    backbone.network, backbone.stages = flat, (stage,)
    assert compute_gradcam(model, pixels, np.array([0, 0, 0])) is None


def test_networks_side_by_side_add_their_maps(taught, small):
    """Against one backward pass through everything, with maps of two sizes."""
    pixels = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model, _ = taught()
    members = [small("test_resnet", seed=seed) for seed in (1, 2)]
    members[1].network.layer4.add_module("pool", nn.AvgPool2d(2, 1))
    model.backbone = join_backbones("a+b", members)
    model.heads = Heads(list(model.heads.specs.values()), model.backbone.width, compose="dual")
    with torch.no_grad():
        model.heads.layers["head_object"][-1].weight.normal_(generator=torch.Generator().manual_seed(3))
    before = copy_state(model)
    classes = np.array([0, 2, 1])
    found = compute_gradcam(model.eval(), pixels, classes)

    kept = []
    with ExitStack() as hooks:
        for network in model.backbone.network.networks:
            hooks.enter_context(network.layer4.register_forward_hook(lambda module, given, out: kept.append(out)))
        scores = model.heads(model.backbone(model.backbone.preprocessing.normalise(pixels)))["object"]
    slopes = torch.autograd.grad(sum(scores[i, label] for i, label in enumerate(classes)), kept)
    large, little = ((slope.mean((2, 3), keepdim=True) * maps).sum(1) for slope, maps in zip(slopes, kept, strict=True))
    assert large.shape == (3, 3, 3)
    assert little.shape == (3, 2, 2)
    total = (large + nn.Upsample(size=(3, 3), mode="bilinear")(little[:, None])[:, 0]).clamp_min(0)
    for i in range(3):
        expected = (total[i] / total[i].max() if total[i].max() else total[i]).detach().numpy()
        np.testing.assert_allclose(found[i], expected, atol=1e-4)
    assert not changed_names(before, model.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.is_grad_enabled()
