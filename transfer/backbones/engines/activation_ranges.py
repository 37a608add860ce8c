"""What 8-bit integers need to know of a network: the ranges of its activations."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from transfer.errors import TransferError


@dataclass(frozen=True)
class ActivationRanges:
    """The ranges of a network's activations, by the node that computes them, as `images` training images have them.

    It holds for all stages below any cut, and travels with a saved model: the images are not needed again.

    Raises
    ------
    TransferError
        A range is not finite, or its low end is above its high end.
    """

    ranges: dict[str, tuple[float, float]]
    images: int

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise TransferError(f"the range of {name} cannot be from {low:g} to {high:g}")

    @cached_property
    def digest(self) -> str:
        """A sha256 of the ranges, part of every cache key."""
        return hashlib.sha256(json.dumps(sorted(self.ranges.items())).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)
