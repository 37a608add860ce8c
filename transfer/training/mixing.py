"""Batches of mixed images, which are to answer as mixed: mixup and CutMix."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transfer.config.train import RegulariseConfig

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels."""


class Labels(NamedTuple):
    """What a batch's rows answer, and how much of the loss that is.

    Parameters
    ----------
    wanted : dict of str to Tensor, shape (N,)
        By head; -1 (NaN for regression) where unknown.
    weights : dict of str to Tensor, shape (N,), optional
        Of the rows in each head's loss.
    share : float
    """

    wanted: dict[str, Tensor]
    weights: dict[str, Tensor] | None = None
    share: float = 1.0

    def part(self, rows: slice | Tensor) -> "Labels":
        """Return those of some of the rows."""
        weights = None if self.weights is None else {name: w[rows] for name, w in self.weights.items()}
        return Labels({name: label[rows] for name, label in self.wanted.items()}, weights, self.share)

    def taken(self, order: Tensor, share: float) -> "Labels":
        """Return these for the rows in another order, at another share."""
        weights = None if self.weights is None else {name: w[order] for name, w in self.weights.items()}
        return Labels({name: label[order] for name, label in self.wanted.items()}, weights, share)


def mix(
    activation: Tensor, labels: Labels, config: RegulariseConfig, rng: np.random.Generator
) -> tuple[Tensor, tuple[Labels, ...]]:
    """Return a batch mixed with itself in another order as `config` says, and the labels of both, the larger share
    first; without mixing both as they are.

    The loss of a mixed row is the mean of its losses on either's label by their shares, which for cross-entropy is the
    loss on the mixed label. One share is drawn for each batch.
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(config, kind)]
    if not kinds:
        return activation, (labels,)
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = getattr(config, kind)
    share = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(activation))).to(activation.device)
    if kind == "mixup":
        mixed = mixup(activation, order, share)
    else:
        height, width = activation.shape[2:]
        box = random_box(height, width, share, rng)
        mixed, share = cutmix(activation, order, box)
    both = labels._replace(share=share), labels.taken(order, 1 - share)
    return mixed, tuple(sorted(both, key=lambda some: -some.share))


def mixup(activation: Tensor, order: Tensor, share: float) -> Tensor:
    """Return ``share * x + (1 - share) * x[order]`` as float32 (Zhang et al. 2018).

    On what frozen layers put out, rather than pixels, this is manifold mixup (Verma et al. 2019) at one layer: the cut.
    """
    x = activation.float()
    return share * x + (1 - share) * x[order]


def cutmix(images: Tensor, order: Tensor, box: Box) -> tuple[Tensor, float]:
    """Return `images` (N, C, H, W) with the `box` of ``images[order]`` in its place, and the share of what is left
    (Yun et al. 2019).
    """
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])


def random_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """Return a box that leaves `share` of an image's area, less what of it lies outside: its centre is anywhere."""
    side = math.sqrt(1 - share)
    h, w = side * height, side * width
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows = [min(max(round(value), 0), height) for value in (y - h / 2, y + h / 2)]
    columns = [min(max(round(value), 0), width) for value in (x - w / 2, x + w / 2)]
    return rows[0], columns[0], rows[1], columns[1]
