"""Random augmentation: resized crops, flips, scales and colours."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from transfer.data.images.preprocessing import SCALED_DECODE_MARGIN, Preprocessing, prepare, resize

# Eigenvalues and eigenvectors, (colour, component), of the RGB values of ImageNet in [0, 1], as published with
# fb.resnet.torch after Krizhevsky et al. 2012.
PRINCIPAL_VALUES = np.array([0.2175, 0.0188, 0.0045])
PRINCIPAL_COMPONENTS = np.array([(-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)])
_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as in Inception


@dataclass(frozen=True)
class Augmentation:
    """The random augmentation of training images.

    Parameters
    ----------
    crop_scale : tuple of float, optional
        Smallest and largest area of a random crop, as a fraction of the image; None: the evaluation view.
    flip : bool
        Flip horizontally with probability 0.5.
    jitter : float
        Brightness, contrast and saturation are each scaled by a factor from ``1 - jitter`` to ``1 + jitter``.
    short_side : tuple of float, optional
        Instead of `crop_scale`: the image is resized to cover the input times a factor between these, then cropped at
        a random place (Simonyan and Zisserman 2015; He et al. 2016 have 256 to 480 pixels for 224).
    pca : float
        Standard deviation of the shift along each principal component of colour, relative to its eigenvalue
        (Krizhevsky et al. 2012 use 0.1).
    """

    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    jitter: float = 0.0
    short_side: tuple[float, float] | None = None
    pca: float = 0.0

    def needed(self, preprocessing: Preprocessing) -> int:
        """Return the side in pixels at which a file must be decoded for the smallest crop to fill the input."""
        if self.short_side is not None:
            return math.ceil(SCALED_DECODE_MARGIN * max(preprocessing.input_size[1:]) * self.short_side[1])
        if self.crop_scale is None:
            return preprocessing.needed
        short = math.sqrt(self.crop_scale[0] * _ASPECT[0])  # side of that crop, as a fraction of the image
        return math.ceil(SCALED_DECODE_MARGIN * max(preprocessing.input_size[1:]) / short)


def augment(
    image: Tensor, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> Tensor:
    """Return a random training view of an image.

    The random resized crop is that of Szegedy et al., "Going Deeper with Convolutions", 2015.

    Parameters
    ----------
    image : Tensor of uint8, shape (3, h, w)

    Returns
    -------
    Tensor of uint8, shape (3, H, W)
        Memory layout as in :func:`transfer.data.images.preprocessing.prepare`.
    """
    _, height, width = preprocessing.input_size
    if augmentation.short_side is not None:
        image = _random_scale(image, (height, width), augmentation.short_side, preprocessing.interpolation, rng)
    elif augmentation.crop_scale is None:
        image = prepare(image, preprocessing)
    else:
        left, top, right, bottom = _random_box(image.shape[2], image.shape[1], augmentation.crop_scale, rng)
        image = resize(image[:, top:bottom, left:right], (height, width), preprocessing.interpolation)
    if augmentation.flip and rng.random() < 0.5:
        image = functional.horizontal_flip(image)
    if augmentation.jitter:
        for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            image = adjust(image, rng.uniform(max(0.0, 1 - augmentation.jitter), 1 + augmentation.jitter))
    if augmentation.pca:
        drawn = rng.normal(0.0, augmentation.pca, 3) * PRINCIPAL_VALUES
        shift = 255 * torch.from_numpy(PRINCIPAL_COMPONENTS @ drawn).float()
        image = (image + shift.view(3, 1, 1)).round().clamp(0, 255).to(torch.uint8)
    return image


def _random_scale(
    image: Tensor, size: tuple[int, int], factors: tuple[float, float], interpolation: str, rng: np.random.Generator
) -> Tensor:
    """Return a random crop of `size` (height, width) of the image resized by a random factor."""
    ratio = rng.uniform(*factors) * max(want / have for want, have in zip(size, image.shape[1:], strict=True))
    image = resize(image, (round(ratio * image.shape[1]), round(ratio * image.shape[2])), interpolation)
    top, left = (int(rng.integers(have - want + 1)) for want, have in zip(size, image.shape[1:], strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def _random_box(
    width: int, height: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a crop of random area and aspect ratio."""
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(_ASPECT)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    # Too long or too narrow an image for such a crop: take the largest central one with an allowed aspect ratio.
    w = min(width, max(1, round(height * _ASPECT[1])))
    h = min(height, max(1, round(width / _ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
