"""What an adaptation method is: a loss over a step's rows of source and target."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Batch:
    """What an objective may see of a step; target labels are not among it (law 3).

    Parameters
    ----------
    features : Tensor, shape (N, F)
        What the classifier reads.
    logits : Tensor, shape (N, C)
    labels : Tensor of int64, shape (N,)
        Class of each row, -1 where it is not known.
    target : Tensor of bool, shape (N,)
        Which rows are of the target domain and unlabelled; its labelled rows count with the source's, as in Saito et
        al. 2019.
    progress : float
        In [0, 1]: how far training is.
    strong : Tensor, shape (N, C), optional
        Logits of a harder version of each row (an augmented view, or features with dropout), for objectives that say
        ``needs_strong``.
    pseudo : Tensor, shape (N, C), optional
        Class probabilities of target rows from outside the network (zero for source rows).
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    target: Tensor
    progress: float = 1.0
    strong: Tensor | None = None
    pseudo: Tensor | None = None

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return `rows` (N, ...) of the source and of the target."""
        return rows[~self.target], rows[self.target]


class AdaptationLoss(nn.Module):
    """A loss beside the labelled rows' cross-entropy; what it learns itself (a discriminator) are its parameters.

    ``forward(batch)`` returns a scalar. Features of both domains come with gradient; a batch may hold no labelled
    target row, but always rows of both domains.
    """

    needs_strong = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a step."""
        raise TypeError(f"{type(self).__name__} has no forward")


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -context.factor * slope, None


def reverse(x: Tensor, factor: float = 1.0) -> Tensor:
    """Return `x`; its gradient comes back times -`factor` (Ganin and Lempitsky 2015, eq. 7-8)."""
    return _Reversed.apply(x, factor)


def ramp(progress: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1, from 0 to 1 (Ganin et al. 2016, sec. 5.2.2).

    Examples
    --------
    >>> [round(ramp(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.462, 0.987, 1.0]
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats, shape (N,), of each row's softmax."""
    log_p = F.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)


def discriminator(width: int, hidden: int = 256) -> nn.Sequential:
    """Return a small network from features to one logit: is it of the target?"""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )
