"""Cross-entropy with pseudo-labels of target rows."""

from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch


class PseudoLabels(AdaptationLoss):
    """Cross-entropy with class probabilities from outside the network (Lee 2013; Liang et al. 2020, eq. 7).

    If `hard`, the most likely class alone is used.
    """

    def __init__(self, *, hard: bool = False) -> None:
        super().__init__()
        self.hard = hard

    def forward(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over target rows with pseudo-labels; a batch without any is a TypeError."""
        if batch.pseudo is None:
            raise TypeError("PseudoLabels needs Batch.pseudo, class probabilities of target rows")
        rows = batch.target & (batch.pseudo.sum(1) > 0)
        if not bool(rows.any()):
            return batch.logits.sum() * 0.0
        q = batch.pseudo[rows]
        if self.hard:
            q = F.one_hot(q.argmax(1), q.shape[1]).to(q.dtype)
        return -(q * batch.logits[rows].log_softmax(1)).sum(1).mean()
