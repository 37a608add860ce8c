"""Which features matter to a head: a group lasso, whose groups are a feature's weights to all outputs.

The relevance of Evci et al. 2022, "Head2Toe: utilizing intermediate representations for better transfer learning",
sec. 3: minimise ``loss(x Wᵀ + b) + penalty * sum_i ||W_i||``, where ``W_i`` are the weights of feature i, and take
``||W_i||``. The penalty (Yuan and Lin 2006) sets whole groups to zero. Solved by FISTA (Beck and Teboulle 2009) with
restarts (O'Donoghue and Candès 2015), on those features alone that cannot be left at zero.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

Loss = Callable[[Tensor], Tensor]
"""Of outputs (N, K), convex and smooth."""
PENALTY, LEAST = 0.1, 1e-4  # of the penalty that leaves all features without weight; but no smaller than this
TOLERANCE = 1e-2  # of slopes, as a fraction of the penalty
FIRST, STEPS = 32, 500  # features to begin with; steps with the same features, at most
ROUNDING = 1e-6  # of a loss in single precision


def relevance(x: Tensor, loss: Loss, outputs: int) -> Tensor:
    """Return how much each feature of `x` (N, width) matters, (width,); its order is what means something.

    Of a feature with weight it is the length of its weights, of any other below zero: the further, the more the
    penalty would have to fall to give it some.
    """
    bias = _minimise(x[:, :0], loss, x.new_zeros(outputs, 0), x.new_zeros(outputs), 0.0, ROUNDING)[1]
    slope = _slope(x, loss, x.new_zeros(outputs, x.shape[1]), bias)[0].norm(dim=0)
    penalty = max(PENALTY * float(slope.max()), LEAST)
    weight, bias = group_lasso(x, loss, outputs, penalty)
    lengths, slope = weight.norm(dim=0), _slope(x, loss, weight, bias)[0].norm(dim=0)
    return torch.where(lengths > 0, lengths, (slope / penalty).clamp_max(1) - 1)


def group_lasso(
    x: Tensor, loss: Loss, outputs: int, penalty: float, tolerance: float = TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Return the weight (outputs, width) and bias (outputs,) that minimise ``loss(x Wᵀ + b) + penalty * sum ||W_i||``.

    At the minimum the slope of the loss in ``W_i`` is ``-penalty * W_i / ||W_i||``, or at most `penalty` long where
    ``W_i`` is zero: here, but for about `tolerance` times `penalty`.
    """
    weight, bias = x.new_zeros(outputs, x.shape[1]), x.new_zeros(outputs)
    among = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    with tqdm(desc="selecting features", unit="pass", disable=None, leave=False, delay=2) as bar:
        while True:
            some = among.nonzero().squeeze(1)
            start = weight[:, some], bias
            weight[:, some], bias = _minimise(x[:, some], loss, *start, penalty, tolerance * penalty, bar.update)
            slope = _slope(x, loss, weight, bias)[0].norm(dim=0).masked_fill(among, 0.0)
            wanting = slope.topk(min(max(len(some), FIRST), len(slope))).indices
            wanting = wanting[slope[wanting] > (1 + tolerance) * penalty]
            if not len(wanting):
                return weight, bias
            among[wanting] = True


def shrunk(weight: Tensor, by: float) -> Tensor:
    """Return `weight` (outputs, width) with each column shorter by `by`, zero if it was no longer than that.

    This is the proximal operator of `by` times the sum of the columns' lengths.

    Examples
    --------
    >>> shrunk(torch.tensor([[3.0, 0.3], [4.0, 0.4]]), 1.0)
    tensor([[2.4000, 0.0000],
            [3.2000, 0.0000]])
    """
    lengths = weight.norm(dim=0)
    return weight * torch.where(lengths > by, 1 - by / lengths, 0.0)


def _minimise(
    x: Tensor,
    loss: Loss,
    weight: Tensor,
    bias: Tensor,
    penalty: float,
    near: float,
    on_pass: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Return weight and bias from which a step's slope is below `near`, starting from the ones given."""
    ahead, ahead_bias, momentum, curvature = weight, bias, 1.0, 1.0
    for _ in range(STEPS):
        on_pass()
        slope, bias_slope, value = _slope(x, loss, ahead, ahead_bias)
        curvature *= 0.8  # as small as the loss allows here: steps are its inverse
        while True:
            new, new_bias = shrunk(ahead - slope / curvature, penalty / curvature), ahead_bias - bias_slope / curvature
            step, bias_step = new - ahead, new_bias - ahead_bias
            linear = float((slope * step).sum() + (bias_slope * bias_step).sum())
            square = float(step.square().sum() + bias_step.square().sum())
            with torch.no_grad():
                reached = float(loss(x @ new.T + new_bias))
            if not reached > value + linear + curvature / 2 * square + ROUNDING * abs(value):
                break
            curvature *= 2
        back = float((step * (new - weight)).sum() + (bias_step * (new_bias - bias)).sum()) < 0
        following = 1.0 if back else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        carried = 0.0 if back else (momentum - 1) / following
        ahead, ahead_bias = new + carried * (new - weight), new_bias + carried * (new_bias - bias)
        weight, bias, momentum = new, new_bias, following
        if curvature * float(torch.cat([step.norm(dim=0), bias_step.abs()]).max()) < near:
            break
    return weight, bias


def _slope(x: Tensor, loss: Loss, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the loss's slope in weight and bias, and the loss."""
    with torch.enable_grad():
        out = (x @ weight.T + bias).detach().requires_grad_()
        value = loss(out)
        (slope,) = torch.autograd.grad(value, out)
    return slope.T @ x, slope.sum(0), float(value.detach())
