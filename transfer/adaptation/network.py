"""What a method trains: a domain's own scaling, a bottleneck with a norm per domain, a classifier."""

import torch
from torch import Tensor, nn

from transfer.adaptation.closed_form.alignment import AffineMap
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads

EPSILON = 1e-5


class DomainNorm(nn.Module):
    """Batch normalisation with statistics of each domain's own, scale and shift shared (Chang et al. 2019, sec. 3).

    In training a batch's; else those that :meth:`set_statistics` was given.
    """

    def __init__(self, width: int, domains: int = 2) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(domains, width))
        self.register_buffer("deviation", torch.ones(domains, width))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Return `x` (N, width) normalised; `domain` (N,) int64 is each row's."""
        if not self.training:
            return (x - self.mean[domain]) / self.deviation[domain] * self.weight + self.bias
        out = torch.empty_like(x)
        for side in range(len(self.mean)):
            rows = domain == side
            if bool(rows.any()):
                some = x[rows]
                # one row has no spread of its own: its deviation is 1
                variance = some.var(0, unbiased=False) if len(some) > 1 else torch.ones_like(some[0])
                out[rows] = (some - some.mean(0)) / (variance + EPSILON).sqrt()
        return out * self.weight + self.bias

    def set_statistics(self, x: Tensor, domain: Tensor) -> None:
        """Take each domain's statistics from `x` (N, width), all of its rows."""
        for side in range(len(self.mean)):
            rows = domain == side
            if bool(rows.any()):
                variance = x[rows].var(0, unbiased=False) if int(rows.sum()) > 1 else torch.ones_like(x[0])
                self.mean[side], self.deviation[side] = x[rows].mean(0), (variance + EPSILON).sqrt()


class AdaptationNetwork(nn.Module):
    """From pooled features to what an objective sees.

    Parameters
    ----------
    scalings : tuple of AffineMap
        Of each domain's features, the target's last; rows of the others are sources.
    classes : tuple of str
        Names of the objects.
    bottleneck : int
        Width of what the classifier reads.
    """

    def __init__(self, scalings: tuple[AffineMap, ...], classes: tuple[str, ...], bottleneck: int) -> None:
        super().__init__()
        self.scalings, self.classes = scalings, classes
        self.enter = nn.Linear(scalings[0].size, bottleneck)
        self.norm = DomainNorm(bottleneck, len(scalings))
        self.classifier = nn.Linear(bottleneck, len(classes))
        for layer in (self.enter, self.classifier):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def scale_features(self, features: Tensor, domain: Tensor) -> Tensor:
        """Return pooled `features` (N, width) in their domain's scaling, (N, size); `domain` (N,) is int64."""
        *sources, target = (scaling.tensor(features) for scaling in self.scalings)
        for side, source in enumerate(sources):
            target = torch.where((domain == side)[:, None], source, target)
        return target

    def forward(self, features: Tensor, domain: Tensor) -> Tensor:
        """Return what the classifier reads, (N, bottleneck)."""
        return self.norm(self.enter(self.scale_features(features, domain)), domain).relu()

    def set_statistics(self, features: Tensor, domain: Tensor) -> None:
        """Fix the norm's statistics to those of `features` (N, width), all rows of all domains."""
        with torch.no_grad():
            self.norm.set_statistics(self.enter(self.scale_features(features, domain)), domain)

    def heads(self) -> Heads:
        """Return what this network answers for target images as heads, whose one hidden layer is the bottleneck."""
        scaling, width = self.scalings[-1], len(self.scalings[-1].centre)
        heads = Heads([HeadSpec("object", classes=self.classes)], width, hidden=(len(self.enter.bias),))
        into, out = (layer for layer in heads.modules() if isinstance(layer, nn.Linear))
        with torch.no_grad():
            scale = self.norm.weight / self.norm.deviation[-1]
            weight, bias = scaling.folded(self.enter.weight, self.enter.bias)
            into.weight.copy_(weight * scale[:, None])
            into.bias.copy_((bias - self.norm.mean[-1]) * scale + self.norm.bias)
            out.load_state_dict(self.classifier.state_dict())
        return heads.to(self.enter.weight.device)
