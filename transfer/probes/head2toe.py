"""Head2Toe: a linear probe on the most relevant features of all stages (Evci et al. 2022).

"Head2Toe: utilizing intermediate representations for better transfer learning". Every head selects its own features: a
group lasso ranks them (:func:`rank_features`), and a linear probe is solved on the first of the ranking; its weights on
all others are zero. How many features to use is chosen on the validation rows: from all of them down, while the loss
falls.

The paper weights all stages alike; here each has a smaller share of the variance than the one above it: see
:func:`transfer.backbones.variants.split_variance`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor
from tqdm.auto import tqdm

from transfer.backbones.variants import AllStagesBackbone
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import HeadLayer, Rows, SolverOptions, layer_problems, linear_layers
from transfer.probes.scaling import Blocks

SelectedSolution = dict[str, float]
"""``strength``, the L2 value, and ``percent`` of the features."""
OutputLoss = Callable[[Tensor], Tensor]
"""Of outputs (N, K), convex and smooth."""
# Penalty of the group lasso, as a fraction of the least one that leaves no feature with weight; and its lower bound.
PENALTY_FRACTION, MIN_PENALTY = 0.1, 1e-4
GRADIENT_TOLERANCE = 1e-2  # as a fraction of the penalty
FIRST_ACTIVE_FEATURES = 32  # active set of the group lasso after its first round
MAX_STEPS = 500  # of FISTA on one active set
RELATIVE_ROUNDING = 1e-6  # of a loss in single precision


def solve_head2toe(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    percents: Sequence[float],
    blocks: Blocks = (),
    **options: Unpack[SolverOptions],
) -> dict[str, SelectedSolution]:
    """Set linear `heads` to probes on their most relevant features; return L2 value and percentage by head.

    The other parameters, and what is raised, are as in :func:`transfer.probes.linear.solve_linear_probe`.

    Parameters
    ----------
    percents : sequence of float
        Percentages of the features, in the order in which they are tried. A head without a label in `val` takes the
        first.
    blocks : sequence of (slice, float)
        The features of each stage, and their share of the variance.
    """
    chosen: dict[str, SelectedSolution] = {}
    for layer in layer_problems(heads, train, val, blocks, **options):
        fixed = layer.fixed or {"percent": percents[0], "strength": DEFAULT_PROBE_L2}
        order: Tensor | None = None
        least = float("inf")
        for percent in percents if layer.val else (fixed["percent"],):
            if percent < 100 and order is None:
                order = _rank_for(layer)
            selected = layer.select(None if order is None else order[: max(1, round(percent / 100 * len(order)))])
            problem, log = selected.problem(), partial(layer.log, percent=percent)
            if layer.val:
                l2, loss = problem.choose_l2(log)
                if not loss < least:
                    break
                least = loss
            else:
                l2 = fixed["strength"]
                log(problem.solve_at(l2, fine=True))
            chosen[layer.name] = {"strength": l2, "percent": percent}
            layer.set_weights(*selected.unscale(problem))
    return chosen


def count_selected_features(model: TransferModel) -> dict[str, dict[str, Any]]:
    """Return for each head of `model` which features have a weight: ``percent``, and by stage the ``features``.

    Empty where the backbone's output is the last stage's features alone.
    """
    backbone, found = model.backbone, {}
    if isinstance(backbone, AllStagesBackbone):
        for name, linear in linear_layers(model.heads).items():
            used = (linear.weight != 0).any(0)
            features = {stage: int(used[columns].sum()) for stage, columns in backbone.layout.items()}
            found[name] = {"percent": round(100 * float(used.float().mean()), 2), "features": features}
    return found


def _rank_for(layer: HeadLayer) -> Tensor:
    """Return the indices of all features, the most relevant first."""
    return rank_features(layer.train.x, layer.loss, layer.linear.out_features).argsort(descending=True, stable=True)


def rank_features(x: Tensor, loss: OutputLoss, outputs: int) -> Tensor:
    """Return the relevance of each feature of `x` (N, width), (width,); only its order has a meaning.

    For a feature with weight in the group lasso it is the norm of its weights (Evci et al. 2022, sec. 3). Any other is
    below zero: the further, the more the penalty would have to fall to give it weight.
    """
    bias = _run_fista(x[:, :0], loss, x.new_zeros(outputs, 0), x.new_zeros(outputs), 0.0, RELATIVE_ROUNDING)[1]
    gradient = _gradient(x, loss, x.new_zeros(outputs, x.shape[1]), bias)[0].norm(dim=0)
    penalty = max(PENALTY_FRACTION * float(gradient.max()), MIN_PENALTY)
    weight, bias = solve_group_lasso(x, loss, outputs, penalty)
    norms, gradient = weight.norm(dim=0), _gradient(x, loss, weight, bias)[0].norm(dim=0)
    return torch.where(norms > 0, norms, (gradient / penalty).clamp_max(1) - 1)


def solve_group_lasso(
    x: Tensor, loss: OutputLoss, outputs: int, penalty: float, tolerance: float = GRADIENT_TOLERANCE
) -> tuple[Tensor, Tensor]:
    """Return the weight (outputs, width) and bias (outputs,) that minimise ``loss(x Wᵀ + b) + penalty * sum ||W_i||``.

    ``W_i`` are the weights of feature i; the penalty (Yuan and Lin 2006) sets whole groups to zero. At the minimum the
    gradient of the loss in ``W_i`` is ``-penalty * W_i / ||W_i||``, or at most `penalty` long where ``W_i`` is zero;
    here up to about `tolerance` times `penalty`. Solved by FISTA (Beck and Teboulle 2009) with restarts (O'Donoghue and
    Candès 2015), on an active set that grows by the features whose gradient is too long.
    """
    weight, bias = x.new_zeros(outputs, x.shape[1]), x.new_zeros(outputs)
    active = torch.zeros(x.shape[1], dtype=torch.bool, device=x.device)
    with tqdm(desc="selecting features", unit="pass", disable=None, leave=False, delay=2) as bar:
        while True:
            columns = active.nonzero().squeeze(1)
            start = weight[:, columns], bias
            weight[:, columns], bias = _run_fista(x[:, columns], loss, *start, penalty, tolerance * penalty, bar.update)
            gradient = _gradient(x, loss, weight, bias)[0].norm(dim=0).masked_fill(active, 0.0)
            added = gradient.topk(min(max(len(columns), FIRST_ACTIVE_FEATURES), len(gradient))).indices
            added = added[gradient[added] > (1 + tolerance) * penalty]
            if not len(added):
                return weight, bias
            active[added] = True


def shrink_columns(weight: Tensor, by: float) -> Tensor:
    """Return `weight` (outputs, width) with each column shorter by `by`, zero if it was no longer than that.

    This is the proximal operator of `by` times the sum of the columns' norms.

    Examples
    --------
    >>> shrink_columns(torch.tensor([[3.0, 0.3], [4.0, 0.4]]), 1.0)
    tensor([[2.4000, 0.0000],
            [3.2000, 0.0000]])
    """
    norms = weight.norm(dim=0)
    return weight * torch.where(norms > by, 1 - by / norms, 0.0)


def _run_fista(
    x: Tensor,
    loss: OutputLoss,
    weight: Tensor,
    bias: Tensor,
    penalty: float,
    max_gradient: float,
    on_pass: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Return weight and bias, minimised from the given ones until a step's gradient is below `max_gradient`."""
    ahead, ahead_bias, momentum, curvature = weight, bias, 1.0, 1.0
    for _ in range(MAX_STEPS):
        on_pass()
        gradient, bias_gradient, value = _gradient(x, loss, ahead, ahead_bias)
        curvature *= 0.8  # then doubled until the step is safe: step sizes are its inverse
        while True:
            new = shrink_columns(ahead - gradient / curvature, penalty / curvature)
            new_bias = ahead_bias - bias_gradient / curvature
            step, bias_step = new - ahead, new_bias - ahead_bias
            linear = float((gradient * step).sum() + (bias_gradient * bias_step).sum())
            square = float(step.square().sum() + bias_step.square().sum())
            with torch.no_grad():
                reached = float(loss(x @ new.T + new_bias))
            if not reached > value + linear + curvature / 2 * square + RELATIVE_ROUNDING * abs(value):
                break
            curvature *= 2
        restart = float((step * (new - weight)).sum() + (bias_step * (new_bias - bias)).sum()) < 0
        next_momentum = 1.0 if restart else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        carried = 0.0 if restart else (momentum - 1) / next_momentum
        ahead, ahead_bias = new + carried * (new - weight), new_bias + carried * (new_bias - bias)
        weight, bias, momentum = new, new_bias, next_momentum
        if curvature * float(torch.cat([step.norm(dim=0), bias_step.abs()]).max()) < max_gradient:
            break
    return weight, bias


def _gradient(x: Tensor, loss: OutputLoss, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return the loss's gradient in weight and bias, and the loss."""
    with torch.enable_grad():
        out = (x @ weight.T + bias).detach().requires_grad_()
        value = loss(out)
        (gradient,) = torch.autograd.grad(value, out)
    return gradient.T @ x, gradient.sum(0), float(value.detach())
