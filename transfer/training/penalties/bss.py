"""Batch spectral shrinkage (BSS)."""

import torch
from torch import Tensor

from transfer.training.penalties.penalty import Penalty, PenaltyInputs

PENALISED_VALUES = 1  # number of smallest singular values penalised, as in the paper


class BSS(Penalty):
    """``strength`` times the square of the smallest singular value of a batch's features (N, width) (Chen et al. 2019,
    "Catastrophic forgetting meets negative transfer").

    The components of pretrained features along small singular values transfer worst and may harm.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        return self.strength * torch.linalg.svdvals(step.features.float())[-PENALISED_VALUES:].square().sum()
