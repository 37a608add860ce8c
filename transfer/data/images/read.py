"""An image file -> its pixels as a tensor: what `decode` gives, by the fastest decoder for the file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFile, features
from torch import Tensor

from transfer.data.images.decode import draft, load_upright_rgb, opened, orientation
from transfer.data.shards.address import content, parse

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # deprecated there since 0.29; PIL gives the same pixels
    decode_jpeg = None

# Belongs in the key of any cache of what was computed from decoded images. The number is that of the rules in `decode`
# and here, and of how large a file is decoded (`Preprocessing.needed`).
DECODER = (
    f"pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, "
    f"torchvision {torchvision.__version__}, rules 2"
)


def read(file: str | Path | bytes, *, name: str = "", at_least: int | None = None) -> Tensor:
    """Decode an image file to 8-bit RGB by the rules of :func:`transfer.data.images.decode.decode`.

    Plain JPEG files are decoded by torchvision, to the same pixels. A JPEG more than twice as large as is asked for
    is decoded smaller: its inverse DCT leaves high frequencies out, which costs a fraction of the time.

    Parameters
    ----------
    file : path or bytes
        The file's path (or its address inside a tar shard, `transfer.data.shards.address`), or its content.
    name : str
        What to call the file in an error (default: its path).
    at_least : int, optional
        Let a JPEG be decoded at a half, quarter or eighth of its size, its sides no smaller than this many pixels.

    Returns
    -------
    Tensor of uint8, shape (3, H, W)
        The channels of a pixel lie side by side in memory.

    Raises
    ------
    BadImage
        The file cannot be read or does not decode to its end.
    """
    name = name or ("bytes" if isinstance(file, bytes) else str(file))
    if isinstance(file, str) and (member := parse(file)):
        file = content(member)
    with opened(io.BytesIO(file) if isinstance(file, bytes) else file, name) as image:
        whole = image.size
        draft(image, at_least)
        pixels = _plain_jpeg(image) if image.size == whole else None
        return to_tensor(load_upright_rgb(image)) if pixels is None else pixels


def _plain_jpeg(image: ImageFile.ImageFile) -> Tensor | None:
    """Return the pixels of an open upright JPEG file that is RGB or grey; of any other and of a broken one, none."""
    if decode_jpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L") or orientation(image) != 1:
        return None
    stream: Any = image.fp
    encoded = bytearray(stream.seek(0, io.SEEK_END))  # writable memory, which torch wants even of its inputs
    stream.seek(0)
    stream.readinto(encoded)
    try:
        return decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:  # PIL says what is wrong, or forgives it
        return None


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a uint8 tensor of its own memory, shape (3, H, W), channels side by side."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_image(pixels: Tensor) -> Image.Image:
    """Return uint8 pixels, shape (3, H, W), as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
