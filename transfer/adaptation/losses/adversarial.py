"""Adversarial losses, which make domains indistinguishable to a discriminator: DANN, CDAN, CDAN+E and ADDA."""

import torch
from torch import Tensor
from torch.nn import functional as F

from transfer.adaptation.losses.base import (
    AdaptationLoss,
    Batch,
    build_discriminator,
    ramp_up,
    reverse_gradient,
    softmax_entropy,
)
from transfer.adaptation.registry import register_method


def domain_discrimination_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of a domain discriminator: the mean of both domains' (weighted) means.

    Parameters
    ----------
    logits : Tensor, shape (N, 1)
        The discriminator's, above 0 for the target.
    target : Tensor of bool, shape (N,)
    weights : Tensor, shape (N,), optional
    """
    loss = F.binary_cross_entropy_with_logits(logits.squeeze(1), target.to(logits.dtype), reduction="none")
    weights = torch.ones_like(loss) if weights is None else weights
    source_mean, target_mean = ((weights[rows] * loss[rows]).sum() / weights[rows].sum() for rows in (~target, target))
    return (source_mean + target_mean) / 2


class DANN(AdaptationLoss):
    """Domain-adversarial training: a domain head behind gradient reversal (Ganin et al. 2016, eq. 9-10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.domain = build_discriminator(width)

    def forward(self, batch: Batch) -> Tensor:
        """Return the domain loss; the features get its gradient reversed, with a factor that ramps up."""
        reversed_features = reverse_gradient(batch.features, ramp_up(batch.progress))
        return domain_discrimination_loss(self.domain(reversed_features), batch.target)


class CDAN(AdaptationLoss):
    """Conditional adversarial training: DANN on features ⊗ class probabilities (Long et al. 2018, eq. 7).

    Above 4,096 products, random projections of both are multiplied instead (eq. 5-6). As in the authors' code, no
    gradient flows through the class probabilities.

    If `weighted` (CDAN+E), each row has weight 1 + exp(-entropy), so that confident rows count more (eq. 8).
    """

    LARGEST = 4096  # products of width and classes that are not projected (the authors' code)
    PROJECTED = 1024  # width of the random projections (the authors' code)

    def __init__(self, width: int, classes: int, *, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted
        self.projects = width * classes > self.LARGEST
        if self.projects:
            self.from_features: Tensor
            self.from_classes: Tensor
            self.register_buffer("from_features", torch.randn(width, self.PROJECTED))
            self.register_buffer("from_classes", torch.randn(classes, self.PROJECTED))
        self.domain = build_discriminator(self.PROJECTED if self.projects else width * classes)

    def multilinear_map(self, features: Tensor, p: Tensor) -> Tensor:
        """Return the multilinear map (N, F * C) of features (N, F) and probabilities (N, C), or 1,024 projections."""
        if self.projects:
            return (features @ self.from_features) * (p @ self.from_classes) / self.PROJECTED**0.5
        return (features[:, :, None] * p[:, None, :]).flatten(1)

    def forward(self, batch: Batch) -> Tensor:
        """Return the domain loss on the map; the features get its gradient reversed, with a factor that ramps up."""
        logits = batch.logits.detach()
        products = self.multilinear_map(batch.features, logits.softmax(1))
        reversed_map = reverse_gradient(products, ramp_up(batch.progress))
        weights = 1 + torch.exp(-softmax_entropy(logits)) if self.weighted else None
        return domain_discrimination_loss(self.domain(reversed_map), batch.target, weights)


class ADDA(AdaptationLoss):
    """Adversarial discriminative adaptation with inverted labels (Tzeng et al. 2017, eq. 7 and 9).

    Only the target's features get the adversary's gradient. One network replaces the paper's two; its first stage,
    training on the source alone, is the method's warm-up and this ramp.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.domain = build_discriminator(width)

    def forward(self, batch: Batch) -> Tensor:
        """Return the discriminator's loss plus the ramped-up loss of target rows under the source's label."""
        discriminator = domain_discrimination_loss(self.domain(batch.features.detach()), batch.target)
        fixed = {name: weight.detach() for name, weight in self.domain.named_parameters()}
        inverted = torch.func.functional_call(self.domain, fixed, (batch.features[batch.target],))
        # softplus(x) = -log(1 - sigmoid(x))
        return discriminator + ramp_up(batch.progress) * F.softplus(inverted).mean()


register_method(
    "dann", "domain-adversarial training (Ganin et al. 2016)", losses=lambda width, *_: [(1.0, DANN(width))]
)
register_method(
    "adda",
    "adversary with inverted labels (Tzeng et al. 2017)",
    losses=lambda width, *_: [(1.0, ADDA(width))],
    warmup=0.3,
)
register_method(
    "cdan",
    "conditional adversary (Long et al. 2018)",
    losses=lambda width, classes, _: [(1.0, CDAN(width, classes))],
)
register_method(
    "cdan_e",
    "conditional adversary weighted by entropy (Long et al. 2018)",
    losses=lambda width, classes, _: [(1.0, CDAN(width, classes, weighted=True))],
)
