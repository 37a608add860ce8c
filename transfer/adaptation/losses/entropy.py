"""Target rows and their classes told by entropy: information maximisation, and minimax entropy (MME)."""

from torch import Tensor, nn

from transfer.adaptation.losses.base import AdaptationLoss, Batch, entropy, ramp, reverse
from transfer.adaptation.registry import register_method


class InformationMaximisation(AdaptationLoss):
    """Sure of each target row, diverse over all of them: E[H(p)] - H(E[p]) (Liang et al. 2020, eq. 3).

    From -log C (each row sure, classes alike in number) to 0 (every row answered the same).
    """

    def forward(self, batch: Batch) -> Tensor:
        """Return the negative mutual information, in nats, of the target's rows and their classes."""
        log_p = batch.logits[batch.target].log_softmax(1)
        log_mean = log_p.logsumexp(0, keepdim=True)  # up to a constant, which entropy's softmax takes out
        return entropy(log_p).mean() - entropy(log_mean).squeeze()


class MinimaxEntropy(AdaptationLoss):
    """Minimax entropy (MME): the classifier raises the target's entropy, features lower it (Saito et al. 2019, eq. 4).

    Of the target's rows without a label. Its weight in the paper is 0.1.

    Parameters
    ----------
    classifier : nn.Module
        The model's own, from features (N, F) to logits (N, C). It is not registered here: its parameters are the
        model's to train, save and move. The paper's has a temperature and takes the cosine with each class.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self._own = (classifier,)  # in a tuple nn.Module does not see it

    def forward(self, batch: Batch) -> Tensor:
        """Return minus the mean entropy: descended by the classifier, climbed by the features (ramped up)."""
        (classifier,) = self._own
        rows = batch.target & (batch.labels < 0)
        logits = classifier(reverse(batch.features[rows], ramp(batch.progress)))
        return -entropy(logits).sum() / rows.sum().clamp_min(1)


register_method(
    "im",
    "information maximisation (Liang et al. 2020)",
    losses=lambda width, classes, classifier: [(1.0, InformationMaximisation())],
)
register_method(
    "mme",
    "minimax entropy (Saito et al. 2019)",
    losses=lambda width, classes, classifier: [(0.1, MinimaxEntropy(classifier))],
)
