"""Toy surfaces in the plane, and the path that an optimizer takes on each: what tells optimizers apart, to look at."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from transfer.config.train import LearnConfig
from transfer.training import optimizers

Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Surface:
    """A height over the plane.

    Parameters
    ----------
    height : callable
        Of x and y, tensors of one shape.
    start : (float, float)
        Where optimizers set out.
    box : ((float, float), (float, float))
        The part to look at: from and to in x, and in y.
    noise : float
        Deviation of what is added to each component of the gradient, as a small batch adds it.
    """

    height: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    box: Box
    noise: float = 0.0

    def grid(self, points: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x (points,), y (points,) and the heights (points, points), rows along y."""
        x, y = (torch.linspace(*span, points, dtype=torch.float64) for span in self.box)
        return x.numpy(), y.numpy(), self.height(x[None], y[:, None]).numpy()


SURFACES: dict[str, Surface] = {
    # Fifty times as steep across as along: plain descent swings from wall to wall or creeps.
    "ravine": Surface(lambda x, y: 0.5 * x**2 + 25 * y**2, (-4.0, 0.4), ((-4.5, 1.0), (-0.6, 0.6))),
    # Flat at the origin, down on both sides: the start is a hair off the ridge.
    "saddle": Surface(lambda x, y: x**2 - y**2 + 0.25 * y**4, (-1.0, 0.001), ((-1.3, 1.3), (-2.0, 2.0))),
    # Two basins; the one on the way is the shallower.
    "local minimum": Surface(
        lambda x, y: 0.05 * (x - 2) ** 2 + y**2 - 0.25 * torch.exp(-4 * (x + 1) ** 2), (-2.5, 0.8), ((-3, 3), (-1, 1))
    ),
    "noise": Surface(lambda x, y: 0.5 * x**2 + 2 * y**2, (-2.0, 1.0), ((-2.5, 1.0), (-1.2, 1.2)), noise=2.0),
}


SETTINGS: dict[str, LearnConfig] = {
    name: LearnConfig(optimizer=name, lr=rate, momentum=0.0 if name == "sgd" else 0.9, batch_size=0)
    for name, rate in {
        "sgd": 0.03,
        "momentum": 0.02,
        "nesterov": 0.02,
        "adagrad": 0.5,
        "rmsprop": 0.03,
        "adam": 0.1,
        "lbfgs": 1.0,
    }.items()
}
"""Rates at which each does well in the ravine, save that plain descent is near where it would diverge."""


def path(surface: Surface, config: LearnConfig, steps: int = 100, seed: int = 0) -> np.ndarray:
    """Return the places, shape (steps + 1, 2), that the optimizer of `config` passes at its ``lr``, without decay.

    Each of L-BFGS's steps is one iteration of its own; noise is drawn anew at each look, so that its line search sees
    another slope than its last.

    Examples
    --------
    >>> np.round(path(SURFACES["ravine"], LearnConfig(optimizer="sgd", lr=0.02, momentum=0.0), steps=2), 3).tolist()
    [[-4.0, 0.4], [-3.92, 0.0], [-3.842, -0.0]]
    """
    place = nn.Parameter(torch.tensor(surface.start, dtype=torch.float64))
    group = {"stage": optimizers.HEADS, "params": [place], "weight_decay": 0.0}
    optimizer = optimizers.create([group], config)
    draw = torch.Generator().manual_seed(seed)

    def ask() -> tuple[Tensor, None]:
        tilt = surface.noise * torch.randn(2, generator=draw, dtype=torch.float64)
        return surface.height(place[0], place[1]) + (tilt * place).sum(), None

    places = [np.array(surface.start)]
    for _ in range(steps):
        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.param_groups[0].update(max_iter=1)
            optimizer.step(ask)
        else:
            optimizer.zero_grad(set_to_none=True)
            ask()[0].backward(create_graph=getattr(optimizer, "is_second_order", False))
            optimizer.step()
        places.append(place.detach().numpy().copy())
    return np.array(places)
