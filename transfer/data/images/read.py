"""Read an image file as a tensor, with the fastest decoder that gives the pixels of `decode`."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageFile, features
from torch import Tensor

from transfer.data.images.decode import decode_smaller, heif_version, load_upright_rgb, open_image, read_orientation
from transfer.data.images.levels import Levels
from transfer.data.shards.address import parse_address, read_member

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # deprecated since torchvision 0.29; PIL gives the same pixels
    decode_jpeg = None

# Part of the key of any cache of values computed from decoded images. The number is the version of the rules in
# `decode`, in this file and in `Preprocessing.needed`.
DECODER = (
    f"pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, "
    f"torchvision {torchvision.__version__}, rules 2"
) + (f", pillow-heif {heif_version()}" if heif_version() else "")


def read_pixels(
    file: str | Path | bytes, *, name: str = "", at_least: int | None = None, levels: Levels = ()
) -> Tensor:
    """Decode an image file to 8-bit RGB by the rules of :func:`transfer.data.images.decode.decode`.

    Plain JPEG files are decoded by torchvision, to the same pixels. A JPEG more than twice as large as
    `at_least` is decoded at a smaller size, which is several times faster.

    Parameters
    ----------
    file : path or bytes
        The file's path (or its address inside a tar shard, `transfer.data.shards.address`), or its content.
    name, at_least, levels
        As for :func:`~transfer.data.images.decode.decode`.

    Returns
    -------
    Tensor of uint8, shape (3, H, W)
        Channels last in memory.

    Raises
    ------
    BadImage
        The file cannot be read or does not decode to its end.
    """
    name = name or ("bytes" if isinstance(file, bytes) else str(file))
    if isinstance(file, str) and (member := parse_address(file)):
        file = read_member(member)
    with open_image(io.BytesIO(file) if isinstance(file, bytes) else file, name) as image:
        whole = image.size
        decode_smaller(image, at_least)
        pixels = _plain_jpeg(image) if image.size == whole else None
        return to_tensor(load_upright_rgb(image, levels)) if pixels is None else pixels


def _plain_jpeg(image: ImageFile.ImageFile) -> Tensor | None:
    """Return the pixels of an upright RGB or grey JPEG file; None for any other or a broken one."""
    if decode_jpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L") or read_orientation(image) != 1:
        return None
    stream: Any = image.fp
    encoded = bytearray(stream.seek(0, io.SEEK_END))  # torch.frombuffer needs writable memory
    stream.seek(0)
    stream.readinto(encoded)
    try:
        return decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:  # PIL reports the error, or tolerates it
        return None


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a new uint8 tensor, shape (3, H, W), channels last in memory."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_image(pixels: Tensor) -> Image.Image:
    """Return uint8 pixels, shape (3, H, W), as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
