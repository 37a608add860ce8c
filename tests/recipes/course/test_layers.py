import numpy as np
import pytest
import torch
from course.config import NetworkConfig
from course.layers import find_dead_units, layer_statistics
from course.networks import build
from torch import nn
from torch.nn import functional as F


def built(**more):
    torch.manual_seed(0)
    return build(NetworkConfig(**({"hidden": (8, 6), "initialisation": "he"} | more)), 4, 3)


IMAGES, LABELS = torch.randn(10, 3, 4, 4), torch.arange(10) % 3


def loss(logits: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, LABELS)


def test_spreads_are_those_of_the_plain_equations() -> None:
    network = built(activation="tanh")
    weights = [m.weight.detach().double().numpy() for m in network.modules() if isinstance(m, nn.Linear)]
    x = IMAGES.double().numpy().reshape(10, -1)
    h1 = np.tanh(x @ weights[0].T)
    h2 = np.tanh(h1 @ weights[1].T)
    logits = h2 @ weights[2].T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    g3 = p - np.eye(3)[LABELS.numpy()]  # of each image's own loss
    g2 = g3 @ weights[2]
    g1 = (g2 * (1 - h2**2)) @ weights[1]
    found = layer_statistics(network, IMAGES, loss)
    assert [line["layer"] for line in found] == ["layer1", "layer2", "output"]
    assert [line["activation"] for line in found] == pytest.approx([v.std(ddof=1) for v in (h1, h2, logits)], rel=1e-5)
    assert [line["gradient"] for line in found] == pytest.approx([v.std(ddof=1) for v in (g1, g2, g3)], rel=1e-5)
    assert [line["dead"] for line in found] == [0, 0, 0]


def test_a_relu_that_never_opens_and_a_saturated_sigmoid_are_dead() -> None:
    network = built()
    with torch.no_grad():
        network.layer1.weights.bias[:6] = -1000
    first, second, _ = layer_statistics(network, IMAGES, loss)
    assert first["dead"] >= 6 / 8
    assert second["dead"] < 1
    network = built(activation="sigmoid")
    with torch.no_grad():
        network.layer2.weights.bias[:3] = 1000
    assert layer_statistics(network, IMAGES, loss)[1]["dead"] == 0.5


def test_dead_units_of_places_count_by_channel_and_small_ones_live() -> None:
    outputs = torch.zeros(2, 3, 2, 2)
    outputs[1, 1, 0, 1] = 1e-20
    outputs[:, 2] = 3.0
    assert find_dead_units(outputs).tolist() == [True, False, True]


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_built_networkand_the_seed_stay_as_they_were(network: str) -> None:
    built_network = built(network=network, batch_norm=True, pooling="fractional").eval()
    before = {name: value.clone() for name, value in built_network.state_dict().items()}
    state = torch.get_rng_state()
    first = layer_statistics(built_network, IMAGES, loss)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in built_network.state_dict().items())
    assert all(p.grad is None for p in built_network.parameters())
    assert not built_network.training
    assert layer_statistics(built_network, IMAGES, loss) == first


def test_too_small_weights_let_activations_and_gradients_fade_and_batch_norm_brings_them_back() -> None:
    deep = {"hidden": (64,) * 5, "initialisation": "too_small"}
    faded, normalised = (layer_statistics(built(**deep, batch_norm=norm), IMAGES, loss) for norm in (False, True))
    for key in ("activation", "gradient"):
        ends = [[lines[-2][key] / lines[0][key] for lines in (faded, normalised)], key]
        ratio = ends[0] if key == "activation" else [1 / r for r in ends[0]]
        assert ratio[0] < 1e-3
        assert ratio[1] > 0.3
