"""MCD: two classifiers that agree on the source and are trained to disagree on the target."""

from torch import Tensor, nn
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp_up, reverse_gradient
from transfer.adaptation.registry import register_method
from transfer.heads.layers import build_mlp


class MCD(AdaptationLoss):
    """Maximum classifier discrepancy (Saito et al. 2018, eq. 1-6), in one step.

    Two classifiers, beside the model's, learn the labels and maximise their disagreement on the target; the features
    learn the labels and minimise it. Gradient reversal does in one step what the paper does in three (A, B, C).
    """

    def __init__(self, width: int, classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.first, self.second = (
            build_mlp(width, (hidden,), classes, activation="relu", dropout=0.0, init="he") for _ in range(2)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return both classifiers' cross-entropy on labelled rows less their mean |p - q| on target rows."""
        reversed_features = reverse_gradient(batch.features[batch.target], ramp_up(batch.progress))
        p, q = self.first(reversed_features).softmax(1), self.second(reversed_features).softmax(1)
        return self.labelled_loss(self.first, batch) + self.labelled_loss(self.second, batch) - (p - q).abs().mean()

    @staticmethod
    def labelled_loss(classifier: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a classifier on labelled rows."""
        loss = F.cross_entropy(classifier(batch.features), batch.labels, ignore_index=-1, reduction="sum")
        return loss / (batch.labels >= 0).sum().clamp_min(1)


register_method(
    "mcd",
    "maximum classifier discrepancy (Saito et al. 2018)",
    losses=lambda width, classes, _: [(1.0, MCD(width, classes))],
)
