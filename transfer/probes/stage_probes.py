"""Stage probes: the mean of linear probes on the features of several stages and on those of all stages together.

Which stage has the best features for a task is not known in advance, and the probes' errors differ: the mean of their
outputs is better than most choices among them, as that of any ensemble is (Hansen and Salamon 1990). A sum of linear
layers is one linear layer on the features of all stages, so predicting costs no more. Each head has members of its own.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

from torch import Tensor

from transfer.heads.heads import Heads
from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.probes.linear import HeadLayer, Rows, SolverOptions, layer_problems
from transfer.probes.scaling import Blocks

MemberSolution = dict[str, float]
"""L2 value of each member, by its stage's name or ``ALL_STAGES``."""

NEAR_BEST = 1.3  # times the lowest validation loss: the most that an averaged member may have
ALL_STAGES = "all stages"
PATIENCE = 2  # consecutive stages not near the best one above them, after which no lower stage is tried

Members = Mapping[str, tuple[slice | None, float]]
"""Columns by member, None for all, and the factor that gives these the scale of a probe of their own."""


def solve_stage_probes(
    heads: Heads,
    train: Rows,
    val: Rows | None = None,
    *,
    stages: Sequence[str],
    blocks: Blocks,
    **options: Unpack[SolverOptions],
) -> dict[str, MemberSolution]:
    """Set linear `heads` to the mean of the probes that are near the best on `val`; return these members by head.

    A head without a label in `val` takes the last stage and all stages.

    The other parameters, and what is raised, are as in :func:`transfer.probes.linear.solve_linear_probe`.

    Parameters
    ----------
    stages : sequence of str
        Their names, lowest first.
    blocks : sequence of (slice, float)
        The features of each stage, and their share of the variance where all are together.
    """
    members, chosen = _members(stages, blocks), {}
    for layer in layer_problems(heads, train, val, blocks, **options):
        if layer.val:
            solved, solution = _solve_members(layer, members)
        else:
            solved, solution = [], layer.fixed or dict.fromkeys((stages[-1], ALL_STAGES), DEFAULT_PROBE_L2)
            for name, l2 in solution.items():
                selected = layer.select(*members[name])
                problem = selected.problem()
                layer.log(problem.solve_at(l2, fine=True), on=name)
                solved.append(selected.unscale(problem))
        weight, bias = (sum(parts) / len(solved) for parts in zip(*solved, strict=True))
        layer.set_weights(weight, bias)
        chosen[layer.name] = solution
    return chosen


def _members(stages: Sequence[str], blocks: Blocks) -> Members:
    """Return the possible members in the order in which they are tried."""
    width = blocks[-1][0].stop
    members: dict[str, tuple[slice | None, float]] = {ALL_STAGES: (None, 1.0)}
    for name, (columns, share) in reversed(list(zip(stages, blocks, strict=True))):
        members[name] = columns, math.sqrt((columns.stop - columns.start) / (share * width))
    return members


def _solve_members(layer: HeadLayer, members: Members) -> tuple[list[tuple[Tensor, Tensor]], MemberSolution]:
    """Return weights and biases of the members near the best, the best first, and their L2 values."""
    solved, l2, losses, worse = {}, {}, {}, 0
    for name, place in members.items():
        selected = layer.select(*place)
        problem = selected.problem()
        l2[name], losses[name] = problem.choose_l2(partial(layer.log, on=name))
        solved[name] = selected.unscale(problem)
        if name != ALL_STAGES:
            least = min(loss for stage, loss in losses.items() if stage != ALL_STAGES)
            worse = worse + 1 if losses[name] > NEAR_BEST * least else 0
            if worse == PATIENCE:
                break
    least = min(losses.values())
    near = [name for name in sorted(losses, key=lambda name: losses[name]) if losses[name] <= NEAR_BEST * least]
    return [solved[name] for name in near], {name: l2[name] for name in near}
