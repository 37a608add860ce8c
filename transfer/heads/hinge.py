"""Hinge losses: nothing to gain once the right answer leads by a margin of 1."""

from torch import Tensor
from torch.nn import functional as F


def hinge(scores: Tensor, target: Tensor) -> Tensor:
    """Return each row's multiclass hinge loss: 1 plus the best wrong score less the right one, if that is above 0.

    That of Crammer and Singer 2001, which is about 1 for a beginner however many classes there are; the sum over all
    wrong classes (Weston and Watkins 1999) would let a head with more classes drown one with fewer.

    Parameters
    ----------
    scores : Tensor, shape (N, C)
    target : Tensor of int64, shape (N,)

    Returns
    -------
    Tensor, shape (N,)

    Examples
    --------
    >>> from torch import tensor
    >>> hinge(tensor([[3.0, 1.0, 0.5], [0.0, 0.5, 0.2]]), tensor([0, 0]))
    tensor([0.0000, 1.5000])
    """
    right = scores.gather(1, target[:, None]).squeeze(1)
    wrong = scores.scatter(1, target[:, None], float("-inf")).max(1).values
    return F.relu(1 + wrong - right)


def binary_hinge(score: Tensor, target: Tensor) -> Tensor:
    """Return each row's hinge loss ``max(0, 1 - s)`` (Cortes and Vapnik 1995), s being `score` (N,), or its negative
    where `target` (N,) is 0.
    """
    return F.relu(1 - score * (2 * target.to(score) - 1))
