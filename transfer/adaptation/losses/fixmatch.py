"""A sure answer on an image is the label of a harder version of it: FixMatch, with dropout for the harder version."""

from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.registry import register_method


class FixMatch(AdaptationLoss):
    """Pseudo-labels where the classifier is sure, learnt on the strong view (Sohn et al. 2020, eq. 4).

    Parameters
    ----------
    threshold : float
        In [0, 1]: the probability from which an answer counts as sure.
    """

    needs_strong = True

    def __init__(self, threshold: float = 0.95) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the target's strong logits with its sure answers, over all its rows."""
        if batch.strong is None:
            raise TypeError("FixMatch needs Batch.strong, the logits of a harder version of each row")
        sure, answer = batch.logits[batch.target].softmax(1).max(1)
        loss = F.cross_entropy(batch.strong[batch.target], answer, reduction="none")
        return (loss * (sure >= self.threshold)).mean()


register_method(
    "fixmatch",
    "confident predictions learned from features under dropout (after Sohn et al. 2020)",
    losses=lambda width, classes, classifier: [(1.0, FixMatch())],
    warmup=0.3,
)
