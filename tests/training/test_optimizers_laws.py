"""Each optimizer against its plain equations, in double precision over a thousand steps."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from transfer.config.train import LearnConfig
from transfer.training import optimizers

STEPS, SIZE, DECAY = 1000, 6, 0.02
RNG = np.random.default_rng(0)
START = RNG.normal(size=SIZE)
CURVATURE = np.diag(np.geomspace(0.1, 10, SIZE)) + 0.05
NOISE = 0.3 * RNG.normal(size=(STEPS, SIZE))


def slope(x: np.ndarray, step: int) -> np.ndarray:
    """Of a bowl, with noise, so that nothing converges to where all optimizers are alike."""
    return CURVATURE @ (x - 1) + NOISE[step]


def by_torch(lr: float, steps: int = STEPS, scale: float = 1.0, decay: float = DECAY, **settings: Any) -> np.ndarray:
    """Return the places that the optimizer passes, shape (steps + 1, SIZE)."""
    weight = nn.Parameter(torch.from_numpy(START.copy()))
    group = {"name": "w", "stage": optimizers.HEADS_GROUP, "params": [weight], "weight_decay": decay}
    optimizer = optimizers.create_optimizer([group], LearnConfig(lr=lr, **settings))
    places = [START]
    for step in range(steps):
        weight.grad = torch.from_numpy(scale * slope(weight.detach().numpy(), step))
        optimizer.step()
        places.append(weight.detach().numpy().copy())
    return np.array(places)


def by_hand(update: Callable[..., Iterator[np.ndarray]], *settings: float, decay: float = DECAY) -> np.ndarray:
    """Return the same by `update`, a generator of moves that is sent gradients with L2 decay in them."""
    x, moves = START.copy(), update(*settings)
    next(moves)
    places = [x.copy()]
    for step in range(STEPS):
        x = x + moves.send(slope(x, step) + decay * x)
        places.append(x.copy())
    return np.array(places)


def sgd(lr: float) -> Any:
    g = yield
    while True:
        g = yield -lr * g


def momentum(lr: float, beta: float) -> Any:
    """Polyak 1964."""
    g = yield
    v = g.copy()
    while True:
        g = yield -lr * v
        v = beta * v + g


def nesterov(lr: float, beta: float) -> Any:
    """Sutskever et al. 2013, in the form in which the weights are where the gradient is taken."""
    g = yield
    v = g.copy()
    while True:
        g = yield -lr * (g + beta * v)
        v = beta * v + g


def adagrad(lr: float) -> Any:
    """Duchi et al. 2011."""
    g, total = (yield), 0.0
    while True:
        total = total + g**2
        g = yield -lr * g / (np.sqrt(total) + 1e-10)


def rmsprop(lr: float) -> Any:
    """Tieleman and Hinton 2012."""
    g, mean = (yield), 0.0
    while True:
        mean = 0.99 * mean + 0.01 * g**2
        g = yield -lr * g / (np.sqrt(mean) + 1e-8)


def adam(lr: float, eps: float = 1e-8, corrected: bool = True, inside: bool = False) -> Any:
    """Kingma and Ba 2015; with variants: moments not corrected for their start at 0, epsilon under the root."""
    g, m, v, t = (yield), 0.0, 0.0, 0
    while True:
        t += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        first, second = (m / (1 - 0.9**t), v / (1 - 0.999**t)) if corrected else (m, v)
        g = yield -lr * first / (np.sqrt(second + eps) if inside else np.sqrt(second) + eps)


@pytest.mark.parametrize(
    ("name", "update", "settings", "beta"),
    [
        ("sgd", sgd, (0.02,), 0.0),
        ("sgd", momentum, (0.02, 0.9), 0.9),
        ("momentum", momentum, (0.02, 0.9), 0.9),
        ("nesterov", nesterov, (0.02, 0.9), 0.9),
        ("adagrad", adagrad, (0.3,), 0.9),
        ("rmsprop", rmsprop, (0.01,), 0.9),
        ("adam", adam, (0.01,), 0.9),
    ],
)
def test_a_thousand_steps_by_the_equations(name: str, update: Any, settings: tuple[float, ...], beta: float) -> None:
    places = by_torch(settings[0], optimizer=name, momentum=beta)
    assert np.abs(places[-1] - START).max() > 0.1
    np.testing.assert_allclose(places, by_hand(update, *settings), rtol=1e-9, atol=1e-12)


def test_adamw_decays_the_weights_themselves() -> None:
    """Loshchilov and Hutter 2019: the decay is not divided by the gradient's size."""
    lr, x, moves = 0.01, START.copy(), adam(0.01)
    next(moves)
    for step in range(STEPS):
        x = (1 - lr * DECAY) * x + moves.send(slope(x, step))
    np.testing.assert_allclose(by_torch(lr, optimizer="adamw")[-1], x, rtol=1e-9)
    assert np.abs(by_torch(lr, optimizer="adam")[-1] - x).max() > 1e-4


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_momentum_0_is_plain_descent_to_the_bit(name: str) -> None:
    places = by_torch(0.02, optimizer=name, momentum=0.0)
    assert (places == by_torch(0.02, optimizer="sgd", momentum=0.0)).all()
    assert np.abs(places - by_torch(0.02, optimizer="sgd", momentum=0.5)).max() > 0.01


def test_the_bias_correction_of_adam_matters_at_the_start() -> None:
    """Corrected, the first move is as long as the rate; else (1 - b1) / sqrt(1 - b2) = 3.16 times as long."""
    places = by_torch(0.01, optimizer="adam", decay=0.0)
    np.testing.assert_allclose(np.abs(places[1] - places[0]), 0.01, rtol=1e-6)
    without = by_hand(adam, 0.01, 1e-8, False, decay=0.0)
    np.testing.assert_allclose(np.abs(without[1] - without[0]), 0.01 * 0.1 / math.sqrt(0.001), rtol=1e-5)
    with_it = by_hand(adam, 0.01, decay=0.0)
    for _ in range(2):  # what sets the two apart fades
        assert np.abs(with_it[10] - without[10]).max() > 10 * np.abs(np.diff(with_it - without, axis=0)[-1]).max()


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad"])
def test_epsilon_stands_beside_the_root_not_under_it(name: str) -> None:
    """Where gradients are as small as epsilon, the two places are ten thousand times apart."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    group = {"stage": optimizers.HEADS_GROUP, "params": [weight], "weight_decay": 0.0}
    optimizer = optimizers.create_optimizer([group], LearnConfig(optimizer=name, lr=1.0))
    eps = optimizer.param_groups[0]["eps"]
    share = {"adam": 1.0, "rmsprop": 0.01, "adagrad": 1.0}[name]  # of the squared gradient in the first mean
    weight.grad = torch.full((1,), eps, dtype=torch.float64)
    optimizer.step()
    moved = -weight.item()
    assert moved == pytest.approx(1 / (math.sqrt(share) + 1), rel=1e-6)
    assert moved > 100 * eps / math.sqrt(share * eps**2 + eps)


@pytest.mark.parametrize("name", ["adam", "rmsprop", "adagrad"])
def test_a_rescaled_loss_takes_the_same_steps(name: str) -> None:
    plain, scaled = (by_torch(0.01, steps=200, decay=0.0, scale=scale, optimizer=name) for scale in (1.0, 1000.0))
    np.testing.assert_allclose(plain, scaled, rtol=1e-4)
    plain, scaled = (by_torch(1e-4, steps=5, decay=0.0, scale=s, optimizer="sgd") for s in (1.0, 1000.0))
    assert np.abs(plain - scaled).max() > 0.1


def valley(x: Tensor) -> Tensor:
    """Rosenbrock's, in several dimensions."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def lbfgs(start: Tensor, decay: float = 0.0) -> tuple[nn.Parameter, optimizers.LBFGS]:
    weight = nn.Parameter(start.double().clone())
    config = LearnConfig(optimizer="lbfgs", batch_size=0)
    optimizer = optimizers.create_optimizer([{"stage": -1, "params": [weight], "weight_decay": decay}], config)
    assert isinstance(optimizer, optimizers.LBFGS)
    return weight, optimizer


def test_the_direction_of_lbfgs_is_that_of_the_dense_update() -> None:
    """The inverse Hessian of BFGS, built as a matrix from the pairs at hand, times the gradient."""
    weight, optimizer = lbfgs(torch.tensor([-1.2, 1.0, -0.5, 0.8]))
    for _ in range(3):
        optimizer.step(lambda: (valley(weight), None))
        state = optimizer.state[weight]
        inverse = float(state["H_diag"]) * np.eye(4)
        for y, s in zip(state["old_dirs"], state["old_stps"], strict=True):
            y, s = y.numpy(), s.numpy()
            left = np.eye(4) - np.outer(s, y) / (y @ s)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (y @ s)
        np.testing.assert_allclose(state["d"].numpy(), -inverse @ state["prev_flat_grad"].numpy(), rtol=1e-6)


def test_lbfgs_finds_the_floor_of_the_valley() -> None:
    weight, optimizer = lbfgs(torch.tensor([-1.2, 1.0, -0.5, 0.8]))
    for _ in range(10):
        optimizer.step(lambda: (valley(weight), None))
    np.testing.assert_allclose(weight.detach().numpy(), np.ones(4), atol=1e-4)


@pytest.mark.parametrize("start", [(-1.2, 1.0), (3.0, -2.0), (-4.0, 4.0)])
def test_the_loss_of_lbfgs_never_rises(start: tuple[float, float]) -> None:
    """By its line search: whole steps jump out of the valley."""
    weight, optimizer = lbfgs(torch.tensor(start))
    losses = [float(valley(weight.detach()))]
    for _ in range(5):
        optimizer.step(lambda: (valley(weight), None))
        losses.append(float(valley(weight.detach())))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-9


def test_the_decay_of_lbfgs_is_ridge_regression() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    weight, optimizer = lbfgs(torch.zeros(4), decay=0.7)
    for _ in range(5):
        optimizer.step(lambda: ((torch.from_numpy(x) @ weight - torch.from_numpy(y)).square().sum() / 2, None))
    np.testing.assert_allclose(weight.detach(), np.linalg.solve(x.T @ x + 0.7 * np.eye(4), x.T @ y), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("sgd", 0), ("momentum", 1), ("nesterov", 1), ("adagrad", 1), ("rmsprop", 1), ("adam", 2), ("adamw", 2)],
)
def test_state_memory_in_numbers_a_parameter(name: str, numbers: int) -> None:
    """Adam's two moments: with the parameters themselves three times their memory."""
    weight = nn.Parameter(torch.ones(500))
    group = {"stage": -1, "params": [weight], "weight_decay": 0.0}
    beta = 0.0 if name == "sgd" else 0.9
    optimizer = optimizers.create_optimizer([group], LearnConfig(optimizer=name, momentum=beta))
    weight.sum().backward()
    optimizer.step()
    assert optimizers.count_state_bytes(optimizer) - 4 * 500 * numbers in (0, 4)  # some count their steps


def test_the_state_of_lbfgs_is_its_pairs() -> None:
    weight, optimizer = lbfgs(torch.linspace(-1, 1, 50))
    optimizer.step(lambda: (valley(weight), None))
    pairs = len(optimizer.state[weight]["old_dirs"])
    assert 3 < pairs <= 10
    assert optimizers.count_state_bytes(optimizer) == pytest.approx(8 * 50 * (2 * pairs + 2), abs=8 * 200)
