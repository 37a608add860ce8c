"""The network of adaptation losses: a scaling per domain, a bottleneck with domain-specific norm, a classifier."""

import torch
from torch import Tensor, nn

from transfer.adaptation.closed_form.alignment import AffineMap
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads

EPSILON = 1e-5  # added to variances, as in PyTorch's BatchNorm


class DomainNorm(nn.Module):
    """Batch normalisation with statistics per domain; scale and shift are shared (Chang et al. 2019, sec. 3).

    In training mode the statistics are the batch's, in eval mode those of :meth:`set_statistics`.
    """

    def __init__(self, width: int, domains: int = 2) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(domains, width))
        self.register_buffer("deviation", torch.ones(domains, width))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Return `x` (N, width) normalised; `domain` (N,) int64 is the index of each row's domain."""
        if not self.training:
            return (x - self.mean[domain]) / self.deviation[domain] * self.weight + self.bias
        out = torch.empty_like(x)
        for side in range(len(self.mean)):
            rows = domain == side
            if bool(rows.any()):
                inputs = x[rows]
                # a single row has no variance: 1 is used
                variance = inputs.var(0, unbiased=False) if len(inputs) > 1 else torch.ones_like(inputs[0])
                out[rows] = (inputs - inputs.mean(0)) / (variance + EPSILON).sqrt()
        return out * self.weight + self.bias

    def set_statistics(self, x: Tensor, domain: Tensor) -> None:
        """Set each domain's statistics to those of its rows of `x` (N, width)."""
        for side in range(len(self.mean)):
            rows = domain == side
            if bool(rows.any()):
                variance = x[rows].var(0, unbiased=False) if int(rows.sum()) > 1 else torch.ones_like(x[0])
                self.mean[side], self.deviation[side] = x[rows].mean(0), (variance + EPSILON).sqrt()


class AdaptationNetwork(nn.Module):
    """From pooled features to bottleneck features and logits.

    `scalings` align each domain's features, the target's last; `bottleneck` is the width of the classifier's input.
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
        """Return pooled `features` (N, width), each mapped by its domain's scaling, (N, size)."""
        *sources, target = (scaling.tensor(features) for scaling in self.scalings)
        for side, source in enumerate(sources):
            target = torch.where((domain == side)[:, None], source, target)
        return target

    def forward(self, features: Tensor, domain: Tensor) -> Tensor:
        """Return the bottleneck features (N, bottleneck), the classifier's input."""
        return self.norm(self.enter(self.scale_features(features, domain)), domain).relu()

    def set_statistics(self, features: Tensor, domain: Tensor) -> None:
        """Set the norm's statistics to those of pooled `features` (N, width) of all domains."""
        with torch.no_grad():
            self.norm.set_statistics(self.enter(self.scale_features(features, domain)), domain)

    def heads(self) -> Heads:
        """Return this network for target images as heads, whose one hidden layer is the bottleneck."""
        scaling, width = self.scalings[-1], len(self.scalings[-1].centre)
        heads = Heads([HeadSpec("object", classes=self.classes)], width, hidden=(len(self.enter.bias),))
        hidden, output = (layer for layer in heads.modules() if isinstance(layer, nn.Linear))
        with torch.no_grad():
            scale = self.norm.weight / self.norm.deviation[-1]
            weight, bias = scaling.folded(self.enter.weight, self.enter.bias)
            hidden.weight.copy_(weight * scale[:, None])
            hidden.bias.copy_((bias - self.norm.mean[-1]) * scale + self.norm.bias)
            output.load_state_dict(self.classifier.state_dict())
        return heads.to(self.enter.weight.device)
