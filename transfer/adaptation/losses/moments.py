"""Features with the same covariance: Deep CORAL."""

from torch import Tensor

from transfer.adaptation.losses.base import AdaptationLoss, Batch


def covariance(x: Tensor) -> Tensor:
    """Return the covariance (F, F) of the rows of `x` (N, F), 0 for a single row (Sun and Saenko 2016, eq. 2-3)."""
    x = x - x.mean(0)
    return x.T @ x / max(len(x) - 1, 1)


class DeepCORAL(AdaptationLoss):
    """Squared distance of both domains' covariances, over 4 F² (Sun and Saenko 2016, eq. 1)."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the distance."""
        source, target = (covariance(rows) for rows in batch.split(batch.features))
        return (source - target).square().mean() / 4
