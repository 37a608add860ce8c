"""Hinge losses: zero once the true class leads by a margin of 1."""

from torch import Tensor
from torch.nn import functional as F


def hinge_losses(scores: Tensor, target: Tensor) -> Tensor:
    """Return each row's multiclass hinge loss: ``max(0, 1 + best other score - true score)``.

    This is the loss of Crammer and Singer 2001, which is about 1 before training for any number of classes. The sum
    over all other classes (Weston and Watkins 1999) would give heads with more classes a larger weight.

    Parameters
    ----------
    scores : Tensor, shape (N, C)
    target : Tensor of int64, shape (N,)

    Examples
    --------
    >>> from torch import tensor
    >>> hinge_losses(tensor([[3.0, 1.0, 0.5], [0.0, 0.5, 0.2]]), tensor([0, 0]))
    tensor([0.0000, 1.5000])
    """
    true = scores.gather(1, target[:, None]).squeeze(1)
    other = scores.scatter(1, target[:, None], float("-inf")).max(1).values
    return F.relu(1 + other - true)


def binary_hinge_losses(score: Tensor, target: Tensor) -> Tensor:
    """Return each row's hinge loss ``max(0, 1 - s)`` (Cortes and Vapnik 1995).

    s is `score` (N,) where `target` (N,) is 1, and its negative where it is 0.
    """
    return F.relu(1 - score * (2 * target.to(score) - 1))
