"""A linear probe on a selection of the features of all stages (Evci et al. 2022, Head2Toe).

Every head selects for itself, as each asks something else of an image: the features most relevant to it (see
`probes.selection`), on which it is solved like any other probe; its weights on all others are zero. How
many is chosen as the probe chooses its strength: from all features down, for as long as the validation loss falls.

Where the paper has all stages weigh the same, here each weighs less than the one above it: see
:func:`transfer.backbones.variants.shares`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from transfer.backbones.variants import EveryStage
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training.probes.lbfgs import FINE, Line
from transfer.training.probes.linear import DEFAULT_STRENGTH, Rows, Task, layers, tasks
from transfer.training.probes.selection import relevance

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
        See :func:`transfer.training.probes.linear.solve`.

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
