"""Losses on the features of each domain: larger norms (AFN), smaller leading singular values (BSP)."""

import torch
from torch import Tensor

from transfer.adaptation.losses.adversarial import DANN
from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.registry import register_method


class AFN(AdaptationLoss):
    """Stepwise adaptive feature norm: each row's norm grows by a step (Xu et al. 2019, eq. 6).

    The value is always twice the step squared; its gradient is -2 * step along each row.
    """

    def __init__(self, step: float = 1.0) -> None:
        super().__init__()
        self.step = step

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean squared distance of norms to their goals, source plus target."""
        norms = torch.linalg.vector_norm(batch.features, dim=1)
        source, target = batch.split((norms.detach() + self.step - norms).square())
        return source.mean() + target.mean()


class BSP(AdaptationLoss):
    """Batch spectral penalisation, beside an adversarial loss (Chen et al. 2019, eq. 5).

    The directions of the largest singular values transfer best, at the expense of those that separate classes, so the
    largest are penalised. Unlike the paper's, the loss is divided by the number of rows, so that the batch size does
    not matter: the paper's weight of 1e-4 at 36 rows is 0.0036 here.

    `largest` is the number of singular values of each domain.
    """

    def __init__(self, largest: int = 1) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum over both domains of the largest squared singular values of their features, per row."""
        sides = batch.split(batch.features)
        source, target = (torch.linalg.svdvals(rows)[: self.largest].square().sum() / len(rows) for rows in sides)
        return source + target


register_method("afn", "larger feature norms (Xu et al. 2019)", losses=lambda *_: [(0.05, AFN())])
register_method(
    "bsp",
    "DANN with batch spectral penalisation (Chen et al. 2019)",
    losses=lambda width, *_: [(1.0, DANN(width)), (0.0036, BSP())],
)
