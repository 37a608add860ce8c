"""The interface of an adaptation loss, and functions that several losses share."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Batch:
    """The inputs of a loss in one training step; the target's labels are not among them.

    Parameters
    ----------
    features : Tensor, shape (N, F)
        The classifier's input.
    logits : Tensor, shape (N, C)
    labels : Tensor of int64, shape (N,)
        Class of each row, -1 where unknown.
    target : Tensor of bool, shape (N,)
        The unlabelled rows of the target domain. Its labelled rows count as source rows, as in Saito et al. 2019.
    progress : float
        Fraction of training done, in [0, 1].
    strong : Tensor, shape (N, C), optional
        Logits of a strongly augmented version of each row (here: dropout on its features), if the loss has
        ``needs_strong``.
    pseudo : Tensor, shape (N, C), optional
        Class probabilities of target rows from outside the network; zero for source rows.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    target: Tensor
    progress: float = 1.0
    strong: Tensor | None = None
    pseudo: Tensor | None = None

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the source rows and the target rows of `rows` (N, ...)."""
        return rows[~self.target], rows[self.target]


class AdaptationLoss(nn.Module):
    """A loss beside the cross-entropy of labelled rows; its parameters, such as a discriminator's, are trained too.

    ``forward(batch)`` returns a scalar. Features have gradients in both domains. A batch always has rows of both
    domains, though possibly no labelled target row. Losses with networks take the `width` of the features, and some
    the number of `classes`.
    """

    needs_strong = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a step."""
        raise TypeError(f"{type(self).__name__} has no forward")


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -context.factor * slope, None


def reverse_gradient(x: Tensor, factor: float = 1.0) -> Tensor:
    """Return `x`, whose gradient is multiplied by -`factor` (Ganin and Lempitsky 2015, eq. 7-8)."""
    return _GradientReversal.apply(x, factor)


def ramp_up(progress: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1, from 0 to 1 (Ganin et al. 2016, sec. 5.2.2).

    Examples
    --------
    >>> [round(ramp_up(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.462, 0.987, 1.0]
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def softmax_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats, shape (N,), of each row's softmax."""
    log_p = F.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)


def build_discriminator(width: int, hidden: int = 256) -> nn.Sequential:
    """Return an MLP from features (N, width) to the logit (N, 1) of being a target row."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    )
