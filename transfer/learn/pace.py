"""How soon: accuracy by seconds or by labels, and where such a curve first reaches a level."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any


class Stopwatch:
    """Validation accuracy of one head by seconds since now: an `on_epoch` of :func:`transfer.learn.train.train`.

    Unlike the epochs' own seconds these hold all that a run does on the way, the frozen trunk included.

    Parameters
    ----------
    head : str
    clock : callable
        Returns seconds.

    Attributes
    ----------
    points : dict of float to float
        Accuracy by seconds: a point per epoch, one for a solved phase.

    Examples
    --------
    >>> ticks = iter([100.0, 102.5])
    >>> watch = Stopwatch("object", clock=lambda: next(ticks))
    >>> watch({"phase": "full", "epoch": 1, "val": {"object": 0.5}})
    >>> watch.points
    {2.5: 0.5}
    """

    def __init__(self, head: str = "object", clock: Callable[[], float] = time.perf_counter) -> None:
        self.head, self.clock = head, clock
        self.points: dict[float, float] = {}
        self.began = clock()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Take the time of an epoch's line, if it has been validated."""
        if "strength" not in line and self.head in line.get("val", {}):  # strengths are on the way to a solution
            self.points[self.clock() - self.began] = line["val"][self.head]


def first_at(curve: Mapping[float, float], level: float) -> float | None:
    """Return the least x at which the value of `curve`, value by x, is at least `level`; None if it never is.

    Examples
    --------
    >>> first_at({1: 0.4, 2: 0.8, 5: 0.7}, 0.7)
    2
    """
    return min((x for x, value in curve.items() if value >= level), default=None)


def mean_curve(curves: Sequence[Mapping[float, float]]) -> dict[float, float]:
    """Return the mean of `curves`, point by point in their order, in x and in value; as long as the shortest.

    Examples
    --------
    >>> mean_curve([{1.0: 0.25, 2.0: 0.5}, {3.0: 0.75, 4.0: 1.0, 5.0: 1.0}])
    {2.0: 0.5, 3.0: 0.75}
    """
    pairs = zip(*(curve.items() for curve in curves), strict=False)
    return {fmean(x for x, _ in points): fmean(value for _, value in points) for points in pairs}
