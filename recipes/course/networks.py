"""An MLP and a small CNN with selectable activation, initialisation, normalisation and pooling."""

import itertools
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from course.config import NetworkConfig

PIECES = 2  # linear units per maxout unit
SCALES = {"he": 1.0, "too_small": 0.1, "too_large": 10.0}


class Maxout(nn.Module):
    """The largest of each `PIECES` neighbouring channels (Goodfellow et al. 2013).

    Examples
    --------
    >>> import torch
    >>> Maxout()(torch.tensor([[1.0, 3.0, -2.0, -5.0]])).tolist()
    [[3.0, -2.0]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ...) from (B, C * PIECES, ...)."""
        return x.unflatten(1, (-1, PIECES)).amax(2)


class FractionalMaxPool(nn.Module):
    """Fractional max pooling (Graham 2014): overlapping 2 x 2 regions; each side shrinks by the square root of 2.

    The positions of the regions are random for each image and channel in training, and fixed in evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, h, w) from (B, C, H, W), both sides at least 2."""
        size = [max(1, min(side - 1, round(side * 0.5**0.5))) for side in x.shape[2:]]
        fixed = None if self.training else x.new_full((*x.shape[:2], 2), 0.5)
        return F.fractional_max_pool2d(x, 2, output_size=size, _random_samples=fixed)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "maxout": Maxout,
}


def build(config: NetworkConfig, side: int, outputs: int) -> nn.Sequential:
    """Return a network from images (B, 3, side, side) to `outputs` logits, initialised with torch's global random seed.

    Its layers are named ``layer1``, ``layer2``, ... and ``output``.
    """
    network = (_cnn if config.network == "cnn" else _mlp)(config, side, outputs)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            init_weights(module, config)
    return network


def init_weights(module: nn.Linear | nn.Conv2d, config: NetworkConfig) -> None:
    """Initialise a layer's weights from a normal distribution, and its biases with 0.

    ``xavier`` is Glorot and Bengio 2010. ``he`` is He et al. 2015, which preserves the mean square through ReLU layers;
    by the same argument it has half the variance for maxout.
    """
    if config.initialisation == "deviation":
        nn.init.normal_(module.weight, std=config.deviation)
    elif config.initialisation == "xavier":
        nn.init.xavier_normal_(module.weight)
    else:
        squared = 1.0 if config.activation == "maxout" else 0.5  # share of the input's mean square after the activation
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=SCALES[config.initialisation] / (squared * fan_in) ** 0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _mlp(config: NetworkConfig, side: int, outputs: int) -> nn.Sequential:
    network = nn.Sequential(nn.Flatten())
    sizes = [3 * side * side, *config.hidden]
    for i, (into, out) in enumerate(itertools.pairwise(sizes), 1):
        linear = nn.Linear(into, _pieces(config) * out)
        network.add_module(f"layer{i}", _layer(linear, nn.BatchNorm1d(linear.out_features), config))
    network.add_module("output", nn.Linear(sizes[-1], outputs))
    return network


def _cnn(config: NetworkConfig, side: int, outputs: int) -> nn.Sequential:
    network = nn.Sequential()
    sizes = [3, *config.hidden]
    for i, (into, out) in enumerate(itertools.pairwise(sizes), 1):
        conv = nn.Conv2d(into, _pieces(config) * out, 3, padding=1)
        network.add_module(f"layer{i}", _layer(conv, nn.BatchNorm2d(conv.out_channels), config))
        pool = FractionalMaxPool() if config.pooling == "fractional" else nn.MaxPool2d(2, ceil_mode=True)
        network.add_module(f"pool{i}", pool)
    network.add_module("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    network.add_module("output", nn.Linear(sizes[-1], outputs))
    return network


def _pieces(config: NetworkConfig) -> int:
    return PIECES if config.activation == "maxout" else 1


def _layer(weights: nn.Module, norm: nn.Module, config: NetworkConfig) -> nn.Sequential:
    parts = OrderedDict(weights=weights)
    if config.batch_norm:
        parts["norm"] = norm
    parts["activation"] = ACTIVATIONS[config.activation]()
    return nn.Sequential(parts)
