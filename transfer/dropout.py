"""Layers that leave out inputs or weights at random in training; ``torch.nn.Dropout`` is the inverted one."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VanillaDropout(nn.Module):
    """Dropout as first published (Srivastava et al. 2014): inputs are left out in training, and scaled down in use.

    Inverted dropout scales up what it keeps in training, so that using the network costs nothing. In both, what the
    next layer gets in training is on average what it gets in use; here that is ``1 - p`` times as much.

    Examples
    --------
    >>> layer = VanillaDropout(0.25).eval()
    >>> layer(torch.ones(2))
    tensor([0.7500, 0.7500])
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some entries zero, or, in eval mode, all scaled down."""
        return x * torch.empty_like(x).bernoulli_(1 - self.p) if self.training else x * (1 - self.p)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"p={self.p}"


class DropConnect(nn.Linear):
    """A linear layer that leaves out weights in training, others for each row (Wan et al. 2013); biases stay.

    What is kept is scaled up, so that the layer's output in use is the mean of those in training. (The paper draws the
    next layer's input around that mean; as everyone since, this uses the mean.)
    """

    def __init__(self, in_features: int, out_features: int, p: float) -> None:
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (N, out_features) of `x` (N, in_features)."""
        if not self.training:
            return super().forward(x)
        weights = F.dropout(self.weight.expand(len(x), -1, -1), self.p)
        return torch.einsum("ni,noi->no", x, weights) + self.bias
