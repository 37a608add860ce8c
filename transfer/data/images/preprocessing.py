"""Preprocessing of a backbone: resize, crop and normalisation as in timm's evaluation."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from transfer.config import checked
from transfer.data.images.levels import KINDS, Levels
from transfer.data.images.read import to_image, to_tensor
from transfer.errors import TransferError, did_you_mean

CROP_MODES = ("center", "squash", "border")
# Sides of a JPEG decoded at a smaller size, relative to the size it is resized to. On photographs of 1000 pixels the
# features of mobilenetv2_100 change by 3 to 4 % of their norm with 1.5 and by 11 % with 1; a crop one pixel lower
# changes them by 10 %.
SCALED_DECODE_MARGIN = 1.5
MAX_RESIZED_SIDE = 8192  # pixels along a side that an image may be resized to


@dataclass(frozen=True)
class Preprocessing:
    """Input size, interpolation, crop and normalisation of a backbone, with timm's definitions.

    Parameters
    ----------
    input_size : tuple of int
        Channels (3), height and width.
    mean, std : tuple of float
        Per channel, for values in [0, 1].
    interpolation : str
        ``nearest``, ``bilinear``, ``bicubic``, ``box``, ``hamming`` or ``lanczos``.
    crop_pct : float
        Side of the crop as a fraction of the resized image.
    crop_mode : {"center", "squash", "border"}
        Resize the short side and crop the centre; resize both sides, losing the aspect ratio; or resize the
        long side and pad with the mean.
    levels : tuple of (str, float, float)
        Kind, black and white value of deep images (see `transfer.data.images.levels`), as the set was trained with;
        empty if it has none.

    Raises
    ------
    TransferError
        A field has an invalid value.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"
    levels: Levels = ()

    def __post_init__(self) -> None:
        for name in ("input_size", "mean", "std"):
            three = tuple(getattr(self, name))
            if len(three) != 3:
                raise TransferError(f"preprocessing: {name} is {three}, not three numbers")
            object.__setattr__(self, name, three)
        if self.input_size[0] != 3 or min(self.input_size) < 1 or min(self.std) <= 0 or self.crop_pct <= 0:
            raise TransferError(f"preprocessing: sizes, std and crop_pct must be positive, channels 3: {self}")
        if max(self.input_size) > MAX_RESIZED_SIDE or self.crop_pct * MAX_RESIZED_SIDE < max(self.input_size):
            raise TransferError(
                f"preprocessing: input_size over crop_pct is more than {MAX_RESIZED_SIDE} pixels: {self}"
            )
        for kind, black, white in self.levels:
            if kind not in KINDS or not -math.inf < black < white < math.inf:
                raise TransferError(f"preprocessing: levels must be one of {', '.join(KINDS)}, black < white: {self}")
        known = tuple(r.name.lower() for r in Image.Resampling)
        for name, names in (("interpolation", known), ("crop_mode", CROP_MODES)):
            if (value := getattr(self, name)) not in names:
                hint = did_you_mean(value, names)
                raise TransferError(f"preprocessing: unknown {name} {value!r}{hint}; known: {', '.join(names)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; levels only if there are any."""
        record: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        levels = [list(level) for level in record.pop("levels")]
        return record | ({"levels": levels} if levels else {})

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """Return the preprocessing of a record; unknown keys of a provider's record are ignored.

        Raises
        ------
        TransferError
            A field is missing or invalid.
        """
        missing = {"input_size", "mean", "std", "interpolation", "crop_pct"} - set(record)
        if missing:
            raise TransferError(f"preprocessing record lacks {', '.join(sorted(missing))}")
        return checked.from_dict(cls, {k: record[k] for k in cls.__dataclass_fields__ if k in record})

    def normalise(self, batch: Tensor) -> Tensor:
        """Return uint8 images (..., 3, H, W) as float32: (x / 255 - mean) / std."""
        mean, std = (torch.tensor(v, device=batch.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (batch.float() / 255 - mean) / std

    def at_size(self, side: int) -> "Preprocessing":
        """Return the preprocessing for square images of `side` pixels.

        A larger side uses the whole image rather than its centre, so that objects have about the size they had in
        training (Touvron et al. 2019, sec. 3).

        Examples
        --------
        >>> own = Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.875)
        >>> own.at_size(288).resized, own.at_size(128).resized
        ((288, 288), (146, 146))
        """
        crop = max(self.crop_pct, 1.0) if side > max(self.input_size[1:]) else self.crop_pct
        return replace(self, input_size=(3, side, side), crop_pct=crop)

    def with_border(self) -> "Preprocessing":
        """Return the preprocessing that shows the whole image, padded to the input's shape with the mean.

        Examples
        --------
        >>> own = Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 0.875)
        >>> own.with_border().resized, own.with_border().crop_mode
        ((224, 224), 'border')
        """
        return replace(self, crop_pct=1.0, crop_mode="border")

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width of the image before the crop; only one of them applies if the aspect ratio is preserved."""
        _, height, width = self.input_size
        return math.floor(height / self.crop_pct), math.floor(width / self.crop_pct)

    @property
    def needed(self) -> int:
        """Side in pixels at which a file must be decoded for the evaluation view."""
        return math.ceil(SCALED_DECODE_MARGIN * max(self.resized))


def prepare(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return the evaluation view of an image, with timm's geometry and its pixels within two grey levels.

    Exception: a bicubic view that is enlarged in one direction and reduced in the other, where overshoot depends on the
    order of the two.

    Parameters
    ----------
    image : Tensor of uint8, shape (3, h, w)

    Returns
    -------
    Tensor of uint8, shape (3, H, W)
        Often a view into larger memory, channels last.
    """
    _, height, width = preprocessing.input_size
    fill = [0, 0, 0]
    if preprocessing.crop_mode == "border":
        fill = [round(255 * value) for value in preprocessing.mean]
    scaled = _scaled((image.shape[1], image.shape[2]), preprocessing)
    return _crop_centre(resize(image, scaled, preprocessing.interpolation), height, width, fill)


def resize(image: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Return a uint8 image, shape (3, h, w), resized to height and width `size`, antialiased as PIL does it."""
    if interpolation in ("bilinear", "bicubic"):
        return functional.resize(image, list(size), InterpolationMode(interpolation), antialias=True)
    return to_tensor(to_image(image).resize(size[::-1], Image.Resampling[interpolation.upper()]))


def locate_view(height: int, width: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return where in an image the network looks: left, top, width and height as fractions of the image's sides.

    Examples
    --------
    >>> own = Preprocessing((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 1.0)
    >>> locate_view(224, 448, own)
    (0.25, 0.0, 0.5, 1.0)
    """
    scaled = _scaled((height, width), preprocessing)
    across, down = (preprocessing.input_size[2] / scaled[1], preprocessing.input_size[1] / scaled[0])
    return (1 - across) / 2, (1 - down) / 2, across, down


def _scaled(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the height and width to which timm resizes an image of the height and width `size`."""
    have_height, have_width = size
    height, width = preprocessing.resized
    if preprocessing.crop_mode == "squash":
        return height, width
    if preprocessing.crop_mode == "center" and height == width:
        short, long = sorted((have_height, have_width))
        size = height, int(height * long / short)
        return size[::-1] if have_width <= have_height else size
    ratios = have_height / height, have_width / width
    ratio = min(ratios) if preprocessing.crop_mode == "center" else max(ratios)
    return max(1, round(have_height / ratio)), max(1, round(have_width / ratio))


def _crop_centre(image: Tensor, height: int, width: int, fill: list[int]) -> Tensor:
    """Crop to the centre, padding short sides, with the rounding of torchvision."""
    lacks = max(0, width - image.shape[2]), max(0, height - image.shape[1])
    if any(lacks):
        image = functional.pad(image, [*(n // 2 for n in lacks), *(n - n // 2 for n in lacks)], fill=fill)
    top, left = round((image.shape[1] - height) / 2), round((image.shape[2] - width) / 2)
    return image[:, top : top + height, left : left + width]
