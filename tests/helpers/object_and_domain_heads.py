"""An object and a domain head on few features, a batch for them, and their loss in plain Python."""

import math

import torch
from torch import Tensor

from transfer.heads import HeadSpec
from transfer.heads.heads import Heads

OBJECTS, DOMAINS, WIDTH = 4, 3, 6
SPECS = (HeadSpec("object", classes=("a", "b", "c", "d")), HeadSpec("domain", classes=("x", "y", "z")))


def make(specs: tuple[HeadSpec, ...] = SPECS, seed: int = 0, **options) -> Heads:
    torch.manual_seed(seed)
    return Heads(specs, WIDTH, **options)


def draw(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, objects and domains, some labels missing: neither, either, both."""
    g = torch.Generator().manual_seed(seed)
    objects, domains = torch.randint(OBJECTS, (n,), generator=g), torch.randint(DOMAINS, (n,), generator=g)
    objects[::3] = -1
    domains[::4] = -1
    return torch.randn(n, WIDTH, generator=g), objects, domains


def cross_entropy(logits: list[float], target: int, smoothing: float = 0.0) -> float:
    total = math.log(sum(math.exp(v) for v in logits))
    wanted = [smoothing / len(logits) + (1 - smoothing) * (i == target) for i in range(len(logits))]
    return -sum(w * (v - total) for w, v in zip(wanted, logits, strict=True))


def mean(values: list[float], weights: list[float] | None = None) -> float:
    weights = weights or [1.0] * len(values)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights) if values else 0.0
