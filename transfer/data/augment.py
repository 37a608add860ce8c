"""Random training views of an image: the box it is cropped to, its mirror image, its colours."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional

from transfer.data.preprocessing import MARGIN, Preprocessing, prepare, resize

_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as Inception had it and everyone since


@dataclass(frozen=True)
class Augmentation:
    """How a training view differs from the evaluation view.

    Parameters
    ----------
    crop_scale : tuple of float, optional
        Smallest and largest area of a random crop, as a fraction of the image's; none: the evaluation view.
    flip : bool
        Mirror left to right, half of the time.
    jitter : float
        Brightness, contrast and saturation are each scaled by a factor from ``1 - jitter`` to ``1 + jitter``.
    """

    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    jitter: float = 0.0

    def needed(self, preprocessing: Preprocessing) -> int:
        """Return the pixels that the sides of a decoded file should have for the smallest crop to fill the input."""
        if self.crop_scale is None:
            return preprocessing.needed
        short = math.sqrt(self.crop_scale[0] * _ASPECT[0])  # side of that crop, as a fraction of the image's
        return math.ceil(MARGIN * max(preprocessing.input_size[1:]) / short)


def augment(
    image: Tensor, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> Tensor:
    """Return a random training view of an image.

    The random resized crop is that of Szegedy et al., "Going Deeper with Convolutions", 2015.

    Parameters
    ----------
    image : Tensor of uint8, shape (3, h, w)
    preprocessing : Preprocessing
    augmentation : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    Tensor of uint8, shape (3, H, W)
        Its memory as that of :func:`transfer.data.preprocessing.prepare`.
    """
    _, height, width = preprocessing.input_size
    if augmentation.crop_scale is None:
        image = prepare(image, preprocessing)
    else:
        left, top, right, bottom = _random_box(image.shape[2], image.shape[1], augmentation.crop_scale, rng)
        image = resize(image[:, top:bottom, left:right], (height, width), preprocessing.interpolation)
    if augmentation.flip and rng.random() < 0.5:
        image = functional.horizontal_flip(image)
    if augmentation.jitter:
        for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            image = adjust(image, rng.uniform(max(0.0, 1 - augmentation.jitter), 1 + augmentation.jitter))
    return image


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
    # An image too long or too narrow for any such crop: the largest in the middle whose aspect is allowed.
    w = min(width, max(1, round(height * _ASPECT[1])))
    h = min(height, max(1, round(width / _ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
