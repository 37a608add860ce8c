"""The binary head: one of two classes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from transfer.data.table import Target
from transfer.data.target_columns import read_two_classes
from transfer.heads.kind import ClassHeadKind
from transfer.heads.registry import register_head


@register_head
class BinaryHead(ClassHeadKind):
    """One of two classes: one logit (N,), logistic or hinge loss; predictions are the second class's probability."""

    name = "binary"
    summary = "one of two classes; the default for 0/1, no/yes and false/true"
    convex = True
    logits = True

    def read_column(self, column: str, cells: list[str], place: Callable[[int], str]) -> Target:
        """Return 0 and 1 of no/yes, false/true, 0/1, or of the two values that occur, in natural order."""
        return read_two_classes(column, cells, place)

    def outputs(self, spec: Any) -> int:
        """Return 1."""
        return 1

    def shaped(self, output: Any) -> Any:
        """Return logits (N,)."""
        return output.squeeze(1)

    def losses(self, spec: Any, output: Any, target: Any, *, smoothing: float, loss: str) -> Any:
        """Return logistic losses, or hinge losses."""
        from torch.nn import functional as F

        from transfer.heads.hinge import binary_hinge_losses

        if loss == "hinge":
            return binary_hinge_losses(output, target)
        return F.binary_cross_entropy_with_logits(output, target.float(), reduction="none")

    def predictions(self, spec: Any, output: Any) -> Any:
        """Return the probability (N,) of the second class."""
        return output.float().sigmoid()

    def class_probabilities(self, predictions: Any) -> np.ndarray:
        """Return both classes' probabilities in a further, last dimension."""
        return np.stack([1 - predictions, predictions], -1)

    def decide(self, predictions: Any) -> Any:
        """Return 1 where the second class is the likelier one."""
        return (predictions > 0.5) * 1
