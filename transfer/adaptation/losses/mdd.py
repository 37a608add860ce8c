"""An adversary that sides with the classifier on the source and against it on the target: MDD."""

import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp, reverse
from transfer.adaptation.registry import register_method
from transfer.heads.heads import mlp


class MDD(AdaptationLoss):
    """Margin disparity discrepancy (Zhang et al. 2019, eq. 28-30).

    Parameters
    ----------
    width : int
        Of the features.
    classes : int
    margin : float
        exp of the margin: how much the source weighs (the paper's γ).
    reach : float
        How strongly features feel it beside how strongly the adversary does (the paper's η).
    hidden : int
        Width of the adversary's hidden layer.
    """

    def __init__(self, width: int, classes: int, *, margin: float = 4.0, reach: float = 0.1, hidden: int = 256) -> None:
        super().__init__()
        self.margin, self.reach = margin, reach
        self.adversary = mlp(width, (hidden,), classes, activation="relu", dropout=0.0, init="he")

    def forward(self, batch: Batch) -> Tensor:
        """Return what the adversary loses; its gradient reaches the features reversed, ramped up."""
        turned = reverse(batch.features, self.reach * ramp(batch.progress))
        source, target = batch.split(self.adversary(turned))
        said_source, said_target = batch.split(batch.logits.argmax(1))
        agree = F.cross_entropy(source, said_source)
        others = target.scatter(1, said_target[:, None], -torch.inf)
        differ = (target.logsumexp(1) - others.logsumexp(1)).mean()  # -log(1 - softmax), however near 1 that is
        return self.margin * agree + differ


register_method(
    "mdd",
    "margin disparity discrepancy (Zhang et al. 2019)",
    losses=lambda width, classes, classifier: [(1.0, MDD(width, classes))],
)
