"""MCC: minimum class confusion on the target."""

import torch
from torch import Tensor

from transfer.adaptation.losses.base import AdaptationLoss, Batch, softmax_entropy
from transfer.adaptation.registry import register_method

MIN_CLASS_MASS = 1e-12  # floor of a class's total probability in a batch, against division by zero


class MCC(AdaptationLoss):
    """Minimum class confusion (Jin et al. 2020, eq. 3-7); `temperature` divides the logits (eq. 3)."""

    def __init__(self, temperature: float = 2.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean over classes of the share of a class's correlation that is with other classes."""
        logits = batch.logits[batch.target] / self.temperature
        p = logits.softmax(1)
        weight = 1 + torch.exp(-softmax_entropy(logits.detach()))  # the paper's division by their mean cancels below
        confusion = (p * weight[:, None]).T @ p
        share = confusion / confusion.sum(1, keepdim=True).clamp_min(MIN_CLASS_MASS)
        return (share.sum() - share.diagonal().sum()) / len(share)


register_method("mcc", "minimum class confusion (Jin et al. 2020)", losses=lambda *_: [(1.0, MCC())])
