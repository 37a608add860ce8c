"""What a backbone wants its images to be: timm's evaluation view, as data and as a function."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from transfer.errors import TransferError, did_you_mean

CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """Size, scaling and crop of the images that a backbone learned on, in timm's meanings.

    Parameters
    ----------
    input_size : tuple of int
        Channels (3), height and width.
    mean, std : tuple of float
        By channel, of values in [0, 1].
    interpolation : str
        ``nearest``, ``bilinear``, ``bicubic``, ``box``, ``hamming`` or ``lanczos``.
    crop_pct : float
        The crop's side as a fraction of the resized image's.
    crop_mode : {"center", "squash", "border"}
        Resize the short side and crop the centre; resize both sides, losing the aspect ratio; or resize the
        long side and pad with the mean.

    Raises
    ------
    TransferError
        A field is not one of these.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        for name in ("input_size", "mean", "std"):
            three = tuple(getattr(self, name))
            if len(three) != 3:
                raise TransferError(f"preprocessing: {name} is {three}, not three numbers")
            object.__setattr__(self, name, three)
        if self.input_size[0] != 3 or min(self.input_size) < 1 or min(self.std) <= 0 or self.crop_pct <= 0:
            raise TransferError(f"preprocessing: sizes, std and crop_pct must be positive, channels 3: {self}")
        known = tuple(r.name.lower() for r in Image.Resampling)
        for name, value, names in (
            ("interpolation", self.interpolation, known),
            ("crop_mode", self.crop_mode, CROP_MODES),
        ):
            if value not in names:
                hint = did_you_mean(value, names)
                raise TransferError(f"preprocessing: unknown {name} {value!r}{hint}; known: {', '.join(names)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """Return what `to_dict` wrote; further keys of a provider's record are passed over.

        Raises
        ------
        TransferError
            A field is missing.
        """
        missing = {"input_size", "mean", "std", "interpolation", "crop_pct"} - set(record)
        if missing:
            raise TransferError(f"preprocessing record lacks {', '.join(sorted(missing))}")
        return cls(**{k: record[k] for k in cls.__dataclass_fields__ if k in record})

    def normalise(self, batch: Tensor) -> Tensor:
        """Return uint8 images (..., 3, H, W) as float32, scaled to [0, 1], less the mean, over the std."""
        mean, std = (torch.tensor(v, device=batch.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (batch.float() / 255 - mean) / std

    @property
    def resampling(self) -> Image.Resampling:
        """PIL's name for the interpolation."""
        return Image.Resampling[self.interpolation.upper()]


def prepare(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Return the evaluation view of an RGB image, uint8, shape (3, H, W): timm's own, to the pixel."""
    return to_tensor(view(image, preprocessing))


def view(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the evaluation view of an RGB image as an image."""
    _, height, width = preprocessing.input_size
    fill = (0, 0, 0)
    full_height, full_width = (math.floor(side / preprocessing.crop_pct) for side in (height, width))
    if preprocessing.crop_mode == "squash":
        size = (full_width, full_height)
    elif preprocessing.crop_mode == "center" and height == width:
        short, long = sorted(image.size)
        scaled = full_height, int(full_height * long / short)
        size = scaled if image.width <= image.height else scaled[::-1]
    else:
        ratios = image.height / full_height, image.width / full_width
        ratio = min(ratios) if preprocessing.crop_mode == "center" else max(ratios)
        size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
    if preprocessing.crop_mode == "border":
        red, green, blue = (round(255 * value) for value in preprocessing.mean)
        fill = (red, green, blue)
    return _crop_centre(image.resize(size, preprocessing.resampling), width, height, fill)


def _crop_centre(image: Image.Image, width: int, height: int, fill: tuple[int, int, int]) -> Image.Image:
    """Crop to the centre, padding a side that is too short, with torchvision's choice of the odd pixel."""
    left, top = (
        -((want - have) // 2) if want > have else round((have - want) / 2)
        for want, have in ((width, image.width), (height, image.height))
    )
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (width, height), fill)
        canvas.paste(image, (-left, -top))
        return canvas
    return image.crop((left, top, left + width, top + height))


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a uint8 tensor of its own memory, shape (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
