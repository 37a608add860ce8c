"""Batch spectral shrinkage."""

import torch
from torch import Tensor

from transfer.training.penalties.penalty import Penalty, PenaltyInputs

LEAST = 1  # how many singular values: one is the paper's choice


class BSS(Penalty):
    """``strength`` times the square of the least singular value of a batch's features (N, width) (Chen et al. 2019,
    "Catastrophic forgetting meets negative transfer").

    What the pretrained features have in the directions of small singular values carries over least, and may harm.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, step: PenaltyInputs) -> Tensor:
        """Return the term for a step."""
        return self.strength * torch.linalg.svdvals(step.features.float())[-LEAST:].square().sum()
