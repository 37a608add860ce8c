import math

import numpy as np
import pytest
import torch
from course.config import NetworkConfig
from course.networks import ACTIVATIONS, FractionalMaxPool, Maxout, build
from torch import nn

FORMULAS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(z) - 1),
    "maxout": lambda z: np.stack([np.maximum(z[:, 2 * i], z[:, 2 * i + 1]) for i in range(z.shape[1] // 2)], 1),
}


def wide(initialisation, network="mlp", **more):
    torch.manual_seed(0)
    hidden = (300, 200) if network == "mlp" else (64, 128)
    return build(NetworkConfig(network, hidden, initialisation=initialisation, **more), 20, 50)


@pytest.mark.parametrize("activation", FORMULAS)
def test_the_forward_pass_is_its_plain_formula(activation: str) -> None:
    torch.manual_seed(0)
    network = build(NetworkConfig(hidden=(7, 6), activation=activation, initialisation="xavier"), 4, 5)
    for bias in (p for name, p in network.named_parameters() if name.endswith("bias")):
        nn.init.normal_(bias)
    images = torch.randn(9, 3, 4, 4)
    x = images.numpy().astype(np.float64).reshape(9, -1)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for i, linear in enumerate(linears):
        weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
        x = x @ weight.T + bias
        if i < 2:
            x = FORMULAS[activation](x)
            assert x.shape[1] == (7, 6)[i]
    assert len(linears) == 3
    np.testing.assert_allclose(network(images).detach().numpy(), x, rtol=1e-5, atol=1e-6)


def test_every_activation_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


def test_maxout_of_channels_with_places() -> None:
    x = torch.randn(2, 6, 3, 4)
    out = Maxout()(x)
    for b, c, i, j in np.ndindex(2, 3, 3, 4):
        assert out[b, c, i, j] == max(x[b, 2 * c, i, j], x[b, 2 * c + 1, i, j])


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("initialisation", ["deviation", "he", "xavier", "too_small", "too_large"])
def test_weights_spread_as_their_name_says(network: str, initialisation: str) -> None:
    built = wide(initialisation, network)
    count = 0
    for module in built.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            count += 1
            fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
            if isinstance(module, nn.Conv2d):
                fan_out *= 9
            he = math.sqrt(2 / fan_in)
            spread = {
                "deviation": 0.03,
                "he": he,
                "xavier": math.sqrt(2 / (fan_in + fan_out)),
                "too_small": he / 10,
                "too_large": he * 10,
            }[initialisation]
            weights = module.weight.detach()
            assert float(weights.std()) == pytest.approx(spread, rel=0.06)
            assert abs(float(weights.mean())) < 6 * spread / math.sqrt(weights.numel())
            assert not module.bias.any()
    assert count == 3


@pytest.mark.parametrize("activation", ["relu", "maxout"])
def test_he_keeps_the_mean_square_from_layer_to_layer(activation: str) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(hidden=(500,) * 6, activation=activation, initialisation="he")
    x = torch.randn(200, 3, 16, 16)
    squares = []
    for layer in list(build(config, 16, 5).children())[:-1]:
        x = layer(x)
        squares.append(float(x.detach().square().mean()))
    assert squares[-1] / squares[1] == pytest.approx(1, rel=0.3)


def test_the_deviation_can_be_another() -> None:
    weights = wide("deviation", deviation=0.2)[1].weights.weight
    assert float(weights.detach().std()) == pytest.approx(0.2, rel=0.02)


def test_the_seed_draws_the_weights() -> None:
    one, two = (wide("he").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_batch_norm_stands_before_each_activation_and_standardises(network: str) -> None:
    built = wide("too_large", network, batch_norm=True).train()
    seen = {}
    layers = {name: layer for name, layer in built.named_children() if name.startswith("layer")}
    for name, layer in layers.items():
        assert [part for part, _ in layer.named_children()] == ["weights", "norm", "activation"]
        layer.norm.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.detach()}))
    built(50 * torch.randn(32, 3, 20, 20) + 100)
    assert len(seen) == len(layers) == 2
    for out in seen.values():
        units = out.transpose(0, 1).flatten(1)
        torch.testing.assert_close(units.mean(1), torch.zeros(len(units)), atol=1e-4, rtol=0)
        torch.testing.assert_close(units.std(1, correction=0), torch.ones(len(units)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pooling", ["max", "fractional"])
def test_the_cnn_takes_any_side(activation: str, pooling: str) -> None:
    for side in (5, 16):
        network = build(NetworkConfig("cnn", (4, 6), activation=activation, pooling=pooling), side, 7)
        assert network(torch.randn(2, 3, side, side)).shape == (2, 7)


class TestFractionalMaxPool:
    def test_each_output_is_the_largest_of_a_two_by_two_region_and_regions_cover_all(self) -> None:
        x = torch.arange(100.0).view(1, 1, 10, 10)  # the largest of a region is its lower right corner
        for _ in range(5):
            out = FractionalMaxPool().train()(x)[0, 0]
            assert out.shape == (7, 7)
            rows, columns = out[:, 0].long() // 10, out[0].long() % 10
            assert torch.equal(out, rows[:, None] * 10.0 + columns)
            for ends in (rows, columns):
                assert int(ends[-1]) == 9
                assert set((ends[1:] - ends[:-1]).tolist()) <= {1, 2}
                assert int(ends[0]) <= 2

    def test_regions_are_drawn_in_training_and_fixed_in_evaluation(self) -> None:
        x = torch.arange(400.0).view(1, 1, 20, 20)
        pool = FractionalMaxPool()
        torch.manual_seed(0)
        assert len({tuple(pool.train()(x).flatten().tolist()) for _ in range(8)}) > 1
        assert len({tuple(pool.eval()(x).flatten().tolist()) for _ in range(8)}) == 1

    def test_gradients_go_to_the_largest(self) -> None:
        x = torch.randn(1, 2, 6, 6, requires_grad=True)
        out = FractionalMaxPool().eval()(x)
        out.sum().backward()
        assert float(x.grad.sum()) == out.numel()
        assert set(x.detach()[x.grad > 0].tolist()) == set(out.flatten().tolist())
