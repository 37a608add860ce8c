"""Toy loss surfaces over the plane, and the path of an optimizer on each."""

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
    """A loss surface over the plane.

    Parameters
    ----------
    height : callable
        Height at x and y, tensors of the same shape.
    start : (float, float)
        Where optimizers start.
    box : ((float, float), (float, float))
        Region to draw: lower and upper bound of x, and of y.
    noise : float
        Standard deviation of the noise added to each component of the gradient, like that of a small batch.
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
    # Curvature across is fifty times that along: plain descent oscillates or is slow.
    "ravine": Surface(lambda x, y: 0.5 * x**2 + 25 * y**2, (-4.0, 0.4), ((-4.5, 1.0), (-0.6, 0.6))),
    # Flat at the origin and falling on both sides; the start is just beside the ridge.
    "saddle": Surface(lambda x, y: x**2 - y**2 + 0.25 * y**4, (-1.0, 0.001), ((-1.3, 1.3), (-2.0, 2.0))),
    # Two basins; the shallower one lies between the start and the deeper one.
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
"""Learning rates that do well in the ravine; that of plain descent is close to divergence."""


def trace_path(surface: Surface, config: LearnConfig, steps: int = 100, seed: int = 0) -> np.ndarray:
    """Return the points, shape (steps + 1, 2), that the optimizer of `config` visits, without weight decay.

    A step of L-BFGS is one of its iterations. Noise is sampled at each evaluation, so its line search sees a different
    gradient each time.

    Examples
    --------
    >>> config = LearnConfig(optimizer="sgd", lr=0.02, momentum=0.0)
    >>> np.round(trace_path(SURFACES["ravine"], config, steps=2), 3).tolist()
    [[-4.0, 0.4], [-3.92, 0.0], [-3.842, -0.0]]
    """
    point = nn.Parameter(torch.tensor(surface.start, dtype=torch.float64))
    group = {"stage": optimizers.HEADS_GROUP, "params": [point], "weight_decay": 0.0}
    optimizer = optimizers.create_optimizer([group], config)
    generator = torch.Generator().manual_seed(seed)

    def evaluate() -> tuple[Tensor, None]:
        tilt = surface.noise * torch.randn(2, generator=generator, dtype=torch.float64)
        return surface.height(point[0], point[1]) + (tilt * point).sum(), None

    points = [np.array(surface.start)]
    for _ in range(steps):
        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.param_groups[0].update(max_iter=1)
            optimizer.step(evaluate)
        else:
            optimizer.zero_grad(set_to_none=True)
            evaluate()[0].backward(create_graph=getattr(optimizer, "is_second_order", False))
            optimizer.step()
        points.append(point.detach().numpy().copy())
    return np.array(points)
