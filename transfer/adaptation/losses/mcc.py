"""Classes that are not mistaken for each other on the target: MCC."""

import torch
from torch import Tensor

from transfer.adaptation.losses.base import AdaptationLoss, Batch, entropy
from transfer.adaptation.registry import register_method

RAREST = 1e-12  # a floor for a class's mass in a batch


class MCC(AdaptationLoss):
    """Minimum class confusion (Jin et al. 2020, eq. 3-7).

    Parameters
    ----------
    temperature : float
        By which logits are divided (eq. 3).
    """

    def __init__(self, temperature: float = 2.5) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, batch: Batch) -> Tensor:
        """Return, over classes, the mean share of a class's correlation that is with other classes."""
        logits = batch.logits[batch.target] / self.temperature
        p = logits.softmax(1)
        weight = 1 + torch.exp(-entropy(logits.detach()))  # the mean over rows, as in the paper, cancels below
        confusion = (p * weight[:, None]).T @ p
        share = confusion / confusion.sum(1, keepdim=True).clamp_min(RAREST)
        return (share.sum() - share.diagonal().sum()) / len(share)


register_method(
    "mcc", "minimum class confusion (Jin et al. 2020)", losses=lambda width, classes, classifier: [(1.0, MCC())]
)
