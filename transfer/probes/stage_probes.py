"""Linear probes on the features of several stages, and on those of all together, averaged.

Which stage has the best features for a task is not known before, and one's probe errs where another's does not: the
mean of what they put out is better than most choices among them, as that of any ensemble is (Hansen and Salamon 1990).
A sum of linear layers is one linear layer on the features of all stages, so that it costs no more to predict. Each head
has members of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from transfer.freeze.plan import NEAR_BEST
from transfer.heads.heads import Heads
from transfer.probes.lbfgs import FINE, Line
from transfer.probes.linear import DEFAULT_STRENGTH, Rows, Task, tasks

Solution = dict[str, float]
"""``strength`` of regularisation of each member, by its stage's name or ``ALL``."""

ALL = "all stages"
ENOUGH = 2  # stages in a row that are not near the best one above them: no lower one is tried

Places = Mapping[str, tuple[slice | None, float]]
Layer = tuple[Tensor, Tensor]


def solve(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    stages: Sequence[str],
    blocks: Sequence[tuple[slice, float]],
    smoothing: float = 0.0,
    row_weights: Mapping[str, Tensor] | None = None,
    strengths: Mapping[str, Solution] | None = None,
    on_line: Callable[[Line], None] = lambda line: None,
) -> dict[str, Solution]:
    """Set linear `heads` to the mean of the probes that are near the best on `val`; return these, by head with a label.

    Parameters
    ----------
    stages : sequence of str
        Their names, lowest first.
    blocks : sequence of (slice, float)
        The features of each stage, and their share of the variance where all are together.
    strengths : mapping of str to Solution, optional
        Solve just these members, choosing nothing. A head not among them, as one without a label in `val`, takes the
        last stage and all stages.
    heads, train, val, smoothing, row_weights, on_line
        See :func:`transfer.probes.linear.solve`.

    Raises
    ------
    TransferError
        Features are NaN or infinite.
    """
    places, chosen = _places(stages, blocks), {}
    default = dict.fromkeys((stages[-1], ALL), DEFAULT_STRENGTH)
    for task in tasks(heads, train, val if strengths is None else None, row_weights or {}, blocks):

        def tell(line: Line, member: str, head: str = task.name) -> None:
            on_line({"head": head, "on": member} | line)

        if task.val:
            layers, solution = _near_the_best(task, places, smoothing, tell)
        else:
            layers, solution = [], (strengths or {}).get(task.name) or default
            for name, strength in solution.items():
                problem = task.problem(smoothing, *places[name])
                tell(problem.at(strength, FINE), name)
                layers.append(task.layer(problem, *places[name]))
        weight, bias = (sum(some) / len(layers) for some in zip(*layers, strict=True))
        task.give(weight, bias)
        chosen[task.name] = solution
    return chosen


def _places(stages: Sequence[str], blocks: Sequence[tuple[slice, float]]) -> Places:
    """Return possible members' columns, None for all, and the factor that gives these the scale of their own probe."""
    width = blocks[-1][0].stop
    places: dict[str, tuple[slice | None, float]] = {ALL: (None, 1.0)}
    for name, (columns, share) in reversed(list(zip(stages, blocks, strict=True))):
        places[name] = columns, math.sqrt((columns.stop - columns.start) / (share * width))
    return places


def _near_the_best(
    task: Task, places: Places, smoothing: float, tell: Callable[[Line, str], None]
) -> tuple[list[Layer], Solution]:
    """Return the layers of all members, the best first, and their strengths."""
    layers, strengths, losses, behind = {}, {}, {}, 0
    for name, place in places.items():
        problem, lines = task.problem(smoothing, *place), list[Line]()

        def line(line: Line, name: str = name, lines: list[Line] = lines) -> None:
            lines.append(line)
            tell(line, name)

        strengths[name], layers[name] = problem.choose(line), task.layer(problem, *place)
        losses[name] = min(line["val_loss"] for line in lines)
        if name != ALL:
            least = min(loss for stage, loss in losses.items() if stage != ALL)
            behind = behind + 1 if losses[name] > NEAR_BEST * least else 0
            if behind == ENOUGH:
                break
    least = min(losses.values())
    near = [name for name in sorted(losses, key=lambda name: losses[name]) if losses[name] <= NEAR_BEST * least]
    return [layers[name] for name in near], {name: strengths[name] for name in near}
