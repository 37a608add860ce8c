"""Dropout of inputs or of weights in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DROP_LEVELS = 2**16  # values of the 16 random bits that decide on each entry


def draw_dropout_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Return a random mask of `x`, True where an entry is retained, and the probability of that.

    The probability is ``1 - p``, on a CPU rounded to 1 / 65536: there, 16 random bits decide on each entry, which takes
    a third of the time of ``bernoulli_``. With cached features, drawing masks is most of the cost of a step.
    """
    if x.device.type != "cpu":
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p), 1 - p
    level = min(round(p * DROP_LEVELS), DROP_LEVELS - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[: x.numel()] >= level - DROP_LEVELS // 2).view(x.shape), 1 - level / DROP_LEVELS


class Dropout(nn.Dropout):
    """Inverted dropout: entries that are retained in training are scaled up, so that inference needs no scaling."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with some entries zero and the others scaled up; in eval mode, `x`."""
        if not self.training:
            return x
        retained, share = draw_dropout_mask(x, self.p)
        return x * retained / share


class VanillaDropout(nn.Module):
    """Dropout as first published (Srivastava et al. 2014): inputs are dropped in training, scaled down at inference.

    The next layer's mean input in training equals its input at inference, as with inverted dropout; here both are
    ``1 - p`` times as large.

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
        """Return `x` with some entries zero; in eval mode, all of `x` scaled down."""
        return x * draw_dropout_mask(x, self.p)[0] if self.training else x * (1 - self.p)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"p={self.p}"


class DropConnect(nn.Linear):
    """A linear layer that drops random weights in training, different ones for each row (Wan et al. 2013).

    Retained weights are scaled up, so that the output at inference is the mean output in training. Biases are never
    dropped. (The paper samples the next layer's input from a normal around that mean; this layer uses the mean.)
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
