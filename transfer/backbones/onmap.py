"""A classifier that answers at every place of the last map before it is averaged, as SqueezeNet's does."""

from torch import Tensor, nn


class OnMap(nn.Module):
    """The mean over all places of the rectified answers of a 1 x 1 convolution (Iandola et al. 2016, sec. 3.3).

    Parameters
    ----------
    linear : nn.Linear
        The convolution's weights, from channels to classes.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        """Return logits (N, classes) of `maps` (N, channels, H, W)."""
        return self.linear(maps.permute(0, 2, 3, 1)).relu().mean((1, 2))
