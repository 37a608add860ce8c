"""A time limit: when training must end, and how many epochs fit until then."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

FIT_INTO_LIMIT = "fit into --minutes"  # ends each note on a limit that was too short


@dataclass(frozen=True)
class TimeLimit:
    """Training ends at `end`, in seconds of ``time.monotonic()``; infinity means no limit.

    Examples
    --------
    >>> TimeLimit.after(None).left
    inf
    >>> limit = TimeLimit.after(10)
    >>> 599 < limit.left <= 600, 299 < limit.share(0.5).left <= 300
    (True, True)
    """

    end: float = math.inf

    @classmethod
    def after(cls, minutes: float | None) -> "TimeLimit":
        """Return the limit `minutes` from now; None: no limit."""
        return cls() if minutes is None else cls(time.monotonic() + 60 * minutes)

    @property
    def left(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(self.end - time.monotonic(), 0.0)

    def share(self, part: float) -> "TimeLimit":
        """Return the limit on the first `part` of the time that is left, above 0 and up to 1."""
        return self if math.isinf(self.end) else TimeLimit(time.monotonic() + part * self.left)

    def divide(self, runs: int) -> Iterator["TimeLimit"]:
        """Yield the limit of each of several runs when it begins: an equal share of the time that is left."""
        for number in range(runs):
            yield self.share(1 / (runs - number))

    def count_epochs(self, planned: int, seconds: float) -> int:
        """Return how many of the `planned` epochs fit, if one takes `seconds`.

        Examples
        --------
        >>> limit = TimeLimit.after(1)
        >>> limit.count_epochs(30, 6.5), limit.count_epochs(30, 0.1), limit.count_epochs(30, 90)
        (9, 30, 0)
        """
        left = self.left
        return planned if left >= planned * seconds else int(left / seconds)
