"""Layers that leave out inputs or weights at random in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16  # of a chance that sixteen random bits decide


def drawn(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Return which entries of `x` stay, bool of its shape, and how likely that is: ``1 - p``, to 1 / 65536 on a CPU.

    There sixteen random bits an entry decide, which takes a third of the time of a draw by ``bernoulli_``: on kept
    features the masks are most of what a step costs.
    """
    if x.device.type != "cpu":
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p), 1 - p
    level = min(round(p * LEVELS), LEVELS - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[: x.numel()] >= level - LEVELS // 2).view(x.shape), 1 - level / LEVELS


class Dropout(nn.Dropout):
    """Inverted dropout, masks by :func:`drawn`: what is kept in training is scaled up, so that use costs nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some entries zero and the others scaled up, or, in eval mode, as it is."""
        if not self.training:
            return x
        stays, share = drawn(x, self.p)
        return x * stays / share


class VanillaDropout(nn.Module):
    """Dropout as first published (Srivastava et al. 2014): inputs are left out in training, and scaled down in use.

    What the next layer gets in training is on average what it gets in use, as with the inverted kind; here that is
    ``1 - p`` times as much.

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
        return x * drawn(x, self.p)[0] if self.training else x * (1 - self.p)

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
