"""Losses that match moments of both domains: mean embeddings (MMD) in DAN and JAN, covariances in Deep CORAL."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.registry import register_method

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # kernel variances, as multiples of the mean squared distance
MIN_MEAN_DISTANCE = 1e-6  # floor of the mean squared distance, for identical rows


def gaussian_kernels(x: Tensor, widths: Sequence[float] = WIDTHS) -> Tensor:
    """Return the mean, shape (N, N), of Gaussian kernels between the rows of `x` (N, F).

    Their variances are `widths` times the mean squared distance between rows, through which no gradient flows.
    """
    x = x - x.mean(0)  # keeps digits in the difference of squares
    squares = x.square().sum(1)
    distance = (squares[:, None] + squares[None] - 2 * x @ x.T).clamp_min(0)
    mean = (distance.detach().sum() / max(len(x) * (len(x) - 1), 1)).clamp_min(MIN_MEAN_DISTANCE)
    return torch.stack([torch.exp(-distance / (2 * width * mean)) for width in widths]).mean(0)


def squared_mmd(kernel: Tensor, target: Tensor) -> Tensor:
    """Return the unbiased squared MMD of both domains (Gretton et al. 2012, eq. 3) under `kernel` (N, N).

    Around 0, also below, for equal domains. A domain of one row has no pairs: its term is 0.
    """

    def within(rows: Tensor) -> Tensor:
        block = kernel[rows][:, rows]
        return (block.sum() - block.diagonal().sum()) / max(len(block) * (len(block) - 1), 1)

    return within(~target) + within(target) - 2 * kernel[~target][:, target].mean()


class DAN(AdaptationLoss):
    """Multi-kernel MMD of the features, with equal kernel weights (Long et al. 2015, eq. 1-2)."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the squared MMD."""
        return squared_mmd(gaussian_kernels(batch.features), batch.target)


class JAN(AdaptationLoss):
    """Joint MMD of features and class probabilities: a product of kernels (Long et al. 2017, eq. 9)."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the squared joint MMD."""
        kernel = gaussian_kernels(batch.features) * gaussian_kernels(batch.logits.softmax(1), (1.0,))
        return squared_mmd(kernel, batch.target)


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


register_method("dan", "multi-kernel MMD (Long et al. 2015)", losses=lambda *_: [(10.0, DAN())])
register_method("jan", "joint MMD (Long et al. 2017)", losses=lambda *_: [(1.0, JAN())])
register_method("deep_coral", "distance of covariances (Sun and Saenko 2016)", losses=lambda *_: [(1.0, DeepCORAL())])
