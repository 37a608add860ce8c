"""Ranges of a config's numbers, as part of their types: ``epochs: AtLeastOne[int]``."""

import math
from dataclasses import dataclass
from typing import Annotated, TypeVar

T = TypeVar("T")

ABOVE_ZERO = math.ulp(0.0)
BELOW_ONE = math.nextafter(1.0, 0.0)


@dataclass(frozen=True)
class Within:
    """The finite numbers from `least` to `most`.

    Examples
    --------
    >>> 0 in Within(1), Within(1)
    (False, 1 or more)
    >>> Within(0, BELOW_ONE), Within(ABOVE_ZERO), Within(1, 4096)
    (from 0 to below 1, above 0, from 1 to 4096)
    >>> Within(ABOVE_ZERO, BELOW_ONE)
    above 0 and below 1
    """

    least: float
    most: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and number < math.inf

    def __repr__(self) -> str:
        low = "above 0" if self.least == ABOVE_ZERO else f"{self.least:g} or more"
        if self.most == math.inf:
            return low
        high = "below 1" if self.most == BELOW_ONE else f"{self.most:g}"
        return f"above 0 and {high}" if self.least == ABOVE_ZERO else f"from {self.least:g} to {high}"


# Of a number, of one that may be None, and of each number of a sequence.
NotNegative = Annotated[T, Within(0)]
AtLeastOne = Annotated[T, Within(1)]
Positive = Annotated[T, Within(ABOVE_ZERO)]
Fraction = Annotated[T, Within(0, BELOW_ONE)]
Share = Annotated[T, Within(ABOVE_ZERO, BELOW_ONE)]
Pixels = Annotated[T, Within(1, 4096)]  # along a side of an image

NOT_EMPTY = "not empty"
NotEmpty = Annotated[T, NOT_EMPTY]  # a text, or a sequence with one item or more
