"""A linear probe on a selection of the features of all stages (Evci et al. 2022, Head2Toe).

Every head selects for itself, as each asks something else of an image: the features most relevant to it (see
`probes.selection`), on which it is solved like any other probe; its weights on all others are zero. How
many is chosen as the probe chooses its strength: from all features down, for as long as the validation loss falls.

Where the paper has all stages weigh the same, here each weighs less than the one above it: see
:func:`transfer.backbones.variants.shares`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from transfer.backbones.variants import EveryStage
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.probes.lbfgs import FINE, Line
from transfer.probes.linear import DEFAULT_STRENGTH, Rows, Task, layers, tasks

Loss = Callable[[Tensor], Tensor]
"""Of outputs (N, K), convex and smooth."""
PENALTY, LEAST = 0.1, 1e-4  # of the penalty that leaves all features without weight; but no smaller than this
TOLERANCE = 1e-2  # of slopes, as a fraction of the penalty
FIRST, STEPS = 32, 500  # features to begin with; steps with the same features, at most
ROUNDING = 1e-6  # of a loss in single precision
Solution = dict[str, float]
"""``strength`` of regularisation, and ``percent`` of the features."""


def solve(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    percents: Sequence[float],
    blocks: Sequence[tuple[slice, float]] = (),
    smoothing: float = 0.0,
    row_weights: Mapping[str, Tensor] | None = None,
    strengths: Mapping[str, Solution] | None = None,
    on_line: Callable[[Line], None] = lambda line: None,
) -> dict[str, Solution]:
    """Set linear `heads` to what is best on `train` with some of the features; return how, by head with a label.

    Parameters
    ----------
    percents : sequence of float
        In the order in which they are tried. A head without a label in `val` takes the first.
    blocks : sequence of (slice, float)
        The features of each stage, and their share of the variance.
    strengths : mapping of str to Solution, optional
        Solve at just these, choosing nothing.
    heads, train, val, smoothing, row_weights, on_line
        See :func:`transfer.probes.linear.solve`.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    chosen = {}
    for task in tasks(heads, train, val if strengths is None else None, row_weights or {}, blocks):
        again = (strengths or {}).get(task.name, {"percent": percents[0], "strength": DEFAULT_STRENGTH})
        order: Tensor | None = None
        least = float("inf")
        for percent in percents if task.val else (again["percent"],):
            if percent < 100 and order is None:
                order = _by_relevance(task, smoothing)
            columns = None if order is None else order[: max(1, round(percent / 100 * len(order)))]
            problem = task.problem(smoothing, columns)
            lines: list[Line] = []

            def tell(line: Line, name: str = task.name, percent: float = percent, lines: list[Line] = lines) -> None:
                lines.append({"head": name, "percent": percent} | line)
                on_line(lines[-1])

            if task.val:
                strength = problem.choose(tell)
                loss = min(line["val_loss"] for line in lines)
                if not loss < least:
                    break
                least = loss
            else:
                strength = again["strength"]
                tell(problem.at(strength, FINE))
            chosen[task.name] = {"strength": strength, "percent": percent}
            task.give(*task.layer(problem, columns))
    return chosen


def kept(model: TransferModel) -> dict[str, dict[str, Any]]:
    """Return for each head of `model` which features it has weight on: ``percent``, and by stage the ``features``.

    Empty where the backbone puts out the last stage's features alone.
    """
    backbone, found = model.backbone, {}
    if isinstance(backbone, EveryStage):
        for name, linear in layers(model.heads).items():
            used = (linear.weight != 0).any(0)
            features = {stage: int(used[columns].sum()) for stage, columns in backbone.layout.items()}
            found[name] = {"percent": round(100 * float(used.float().mean()), 2), "features": features}
    return found


def _by_relevance(task: Task, smoothing: float) -> Tensor:
    """Return the places of all features, the most relevant first."""
    part, rows = task.part, task.train

    def loss(out: Tensor) -> Tensor:
        return part.loss(part(out), rows.targets, smoothing=smoothing, row_weights=rows.weights)

    return relevance(rows.x, loss, task.linear.out_features).argsort(descending=True, stable=True)


def relevance(x: Tensor, loss: Loss, outputs: int) -> Tensor:
    """Return how much each feature of `x` (N, width) matters, (width,); its order is what means something.

    Of a feature with weight it is the length of its weights, of any other below zero: the further, the more the
    penalty would have to fall to give it some.
    """
    bias = _fista(x[:, :0], loss, x.new_zeros(outputs, 0), x.new_zeros(outputs), 0.0, ROUNDING)[1]
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
            weight[:, some], bias = _fista(x[:, some], loss, *start, penalty, tolerance * penalty, bar.update)
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


def _fista(
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
