"""MDD: an adversary that agrees with the classifier on the source and disagrees on the target."""

import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp_up, reverse_gradient
from transfer.adaptation.registry import register_method
from transfer.heads.layers import build_mlp


class MDD(AdaptationLoss):
    """Margin disparity discrepancy (Zhang et al. 2019, eq. 28-30).

    Parameters
    ----------
    margin : float
        exp of the margin: the weight of the source (the paper's γ).
    reach : float
        Factor on the reversed gradient (the paper's η).
    """

    def __init__(self, width: int, classes: int, *, margin: float = 4.0, reach: float = 0.1, hidden: int = 256) -> None:
        super().__init__()
        self.margin, self.reach = margin, reach
        self.adversary = build_mlp(width, (hidden,), classes, activation="relu", dropout=0.0, init="he")

    def forward(self, batch: Batch) -> Tensor:
        """Return the adversary's loss; the features get its gradient reversed, with a factor that ramps up."""
        reversed_features = reverse_gradient(batch.features, self.reach * ramp_up(batch.progress))
        source, target = batch.split(self.adversary(reversed_features))
        source_class, target_class = batch.split(batch.logits.argmax(1))
        agree = F.cross_entropy(source, source_class)
        others = target.scatter(1, target_class[:, None], -torch.inf)
        differ = (target.logsumexp(1) - others.logsumexp(1)).mean()  # -log(1 - softmax), stable for softmax near 1
        return self.margin * agree + differ


register_method(
    "mdd",
    "margin disparity discrepancy (Zhang et al. 2019)",
    losses=lambda width, classes, _: [(1.0, MDD(width, classes))],
)
