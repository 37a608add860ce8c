"""Two classifiers that agree on the source, set against each other on the target: MCD."""

from torch import Tensor, nn
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp, reverse
from transfer.adaptation.registry import register_method
from transfer.heads.heads import mlp


class MCD(AdaptationLoss):
    """Maximum classifier discrepancy (Saito et al. 2018, eq. 1-6), in one step.

    Two classifiers beside the model's own learn the labels and to disagree on the target; features learn the labels
    and to leave nothing to disagree on. Gradient reversal does at once what the paper does in turns (steps A, B, C).

    Parameters
    ----------
    width : int
        Of the features.
    classes : int
    hidden : int
        Width of both classifiers' hidden layer.
    """

    def __init__(self, width: int, classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.first, self.second = (
            mlp(width, (hidden,), classes, activation="relu", dropout=0.0, init="he") for _ in range(2)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return both classifiers' cross-entropy on labelled rows less their mean |p - q| on the target's."""
        turned = reverse(batch.features[batch.target], ramp(batch.progress))
        p, q = self.first(turned).softmax(1), self.second(turned).softmax(1)
        return self.learnt(self.first, batch) + self.learnt(self.second, batch) - (p - q).abs().mean()

    def learnt(self, one: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a classifier on labelled rows."""
        loss = F.cross_entropy(one(batch.features), batch.labels, ignore_index=-1, reduction="sum")
        return loss / (batch.labels >= 0).sum().clamp_min(1)


register_method(
    "mcd",
    "maximum classifier discrepancy (Saito et al. 2018)",
    losses=lambda width, classes, classifier: [(1.0, MCD(width, classes))],
)
