"""How many images pass the frozen stages together, on torch or by torch.compile: a fixed number on each device."""

import torch
from torch import Tensor

# On a CPU few enough for the activations to fit one core's cache.
CHUNK_IMAGES = {"cpu": 4}
DEFAULT_CHUNK_IMAGES = 64  # on any other device: as many as batches of the feed and of predictions have


def count_chunk_images(device: str) -> int:
    """Return the number for a type of device.

    Examples
    --------
    >>> count_chunk_images("cpu"), count_chunk_images("cuda")
    (4, 64)
    """
    return CHUNK_IMAGES.get(device, DEFAULT_CHUNK_IMAGES)


def to_channels_last(x: Tensor) -> Tensor:
    """Return images or maps (N, C, H, W) in the layout that convolutions are fastest in; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
