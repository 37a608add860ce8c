"""FixMatch: a confident prediction is the pseudo-label of the same row under dropout."""

from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.registry import register_method


class FixMatch(AdaptationLoss):
    """Confident predictions, of a probability from `threshold`, as pseudo-labels of the strong view (Sohn et al. 2020,
    eq. 4).
    """

    needs_strong = True

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the strong logits with confident predictions, as a mean over all target rows."""
        if batch.strong is None:
            raise TypeError("FixMatch needs Batch.strong, the logits of a strongly augmented version of each row")
        confidence, predicted = batch.logits[batch.target].softmax(1).max(1)
        loss = F.cross_entropy(batch.strong[batch.target], predicted, reduction="none")
        return (loss * (confidence >= self.threshold)).mean()


register_method(
    "fixmatch",
    "confident predictions learned from features under dropout (after Sohn et al. 2020)",
    losses=lambda *_: [(1.0, FixMatch())],
    warmup=0.3,
)
