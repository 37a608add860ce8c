"""Losses on the entropy of target predictions: information maximisation (IM) and minimax entropy (MME)."""

from torch import Tensor, nn

from transfer.adaptation.losses.base import AdaptationLoss, Batch, ramp_up, reverse_gradient, softmax_entropy
from transfer.adaptation.registry import register_method


class InformationMaximisation(AdaptationLoss):
    """Confident for each target row, diverse over all rows: E[H(p)] - H(E[p]) (Liang et al. 2020, eq. 3).

    From -log C (each row certain, classes balanced) to 0 (the same prediction for every row).
    """

    def forward(self, batch: Batch) -> Tensor:
        """Return the negative mutual information, in nats, between target rows and their predicted classes."""
        log_p = batch.logits[batch.target].log_softmax(1)
        log_mean = log_p.logsumexp(0, keepdim=True)  # up to a constant, which softmax_entropy removes
        return softmax_entropy(log_p).mean() - softmax_entropy(log_mean).squeeze()


class MinimaxEntropy(AdaptationLoss):
    """Minimax entropy: maximised by the classifier, minimised by the features (Saito et al. 2019, eq. 4).

    Over the target's unlabelled rows. The paper's weight is 0.1.

    Parameters
    ----------
    classifier : nn.Module
        The model's classifier, from features (N, F) to logits (N, C). It is not registered as a submodule, since its
        parameters belong to the model. The paper's has a temperature and takes the cosine with each class.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self._classifier = (classifier,)  # in a tuple nn.Module does not register it

    def forward(self, batch: Batch) -> Tensor:
        """Return minus the mean entropy; the features get its gradient reversed, with a factor that ramps up."""
        (classifier,) = self._classifier
        rows = batch.target & (batch.labels < 0)
        logits = classifier(reverse_gradient(batch.features[rows], ramp_up(batch.progress)))
        return -softmax_entropy(logits).sum() / rows.sum().clamp_min(1)


register_method(
    "im", "information maximisation (Liang et al. 2020)", losses=lambda *_: [(1.0, InformationMaximisation())]
)
register_method(
    "mme",
    "minimax entropy (Saito et al. 2019)",
    losses=lambda width, classes, classifier: [(0.1, MinimaxEntropy(classifier))],
)
