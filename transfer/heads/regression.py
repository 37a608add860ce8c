"""The regression head: a number."""

from typing import Any

import numpy as np

from transfer.heads.kind import HeadKind
from transfer.heads.registry import register_head


@register_head
class RegressionHead(HeadKind):
    """A number: the head learns the standardised target by squared error."""

    name = "regression"
    summary = "a number; the default for numbers"
    convex = True

    def centre_and_spread(self, values: np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation."""
        return (float(values.mean()), float(values.std()) or 1.0) if len(values) else (0.0, 1.0)

    def losses(self, spec: Any, output: Any, target: Any, *, smoothing: float, loss: str) -> Any:
        """Return squared errors of the standardised target."""
        from torch.nn import functional as F

        return F.mse_loss(output, (target.float() - spec.centre) / spec.spread, reduction="none")

    def predictions(self, spec: Any, output: Any) -> Any:
        """Return values (N,) in their own unit."""
        return output.float() * spec.spread + spec.centre

    def fold_unit(self, spec: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
        """Return weight and bias that give values in their own unit."""
        return weight * spec.spread, bias * spec.spread + spec.centre
