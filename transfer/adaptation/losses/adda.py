"""The target's features moved to where the source's are: ADDA."""

import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.adversarial import told_apart
from transfer.adaptation.losses.base import AdaptationLoss, Batch, discriminator, ramp


class ADDA(AdaptationLoss):
    """Adversarial discriminative adaptation with inverted labels (Tzeng et al. 2017, eq. 7 and 9).

    Only the target's features are moved; the source's stay where their labels put them. The paper's two networks are
    one here, and its first stage, training on the source alone, is the method's warm-up and this ramp.

    Parameters
    ----------
    width : int
        Of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.domain = discriminator(width)

    def forward(self, batch: Batch) -> Tensor:
        """Return the discriminator's own loss plus what the target's rows cost under the source's label, ramped up."""
        own = told_apart(self.domain(batch.features.detach()), batch.target)
        fixed = {name: weight.detach() for name, weight in self.domain.named_parameters()}
        taken = torch.func.functional_call(self.domain, fixed, (batch.features[batch.target],))
        return own + ramp(batch.progress) * F.softplus(taken).mean()  # softplus(x) = -log(1 - sigmoid(x))
