"""Mixup and CutMix: batches of mixed images with mixed labels."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transfer.config.train import RegulariseConfig

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels."""


class Labels(NamedTuple):
    """Labels of a batch's rows, and their share of the loss."""

    wanted: dict[str, Tensor]  # by head, (N,); -1 (NaN for regression) where unknown
    weights: dict[str, Tensor] | None = None  # of the rows in each head's loss, (N,)
    share: float = 1.0  # in [0, 1]

    def take(self, rows: slice | Tensor) -> "Labels":
        """Return the labels of `rows`, which may reorder them."""
        weights = None if self.weights is None else {name: weight[rows] for name, weight in self.weights.items()}
        return Labels({name: label[rows] for name, label in self.wanted.items()}, weights, self.share)


def mix(
    activation: Tensor, labels: Labels, config: RegulariseConfig, rng: np.random.Generator
) -> tuple[Tensor, tuple[Labels, ...]]:
    """Return a batch mixed with a permutation of itself, and the labels of both, the larger share first.

    Where `config` mixes nothing, the batch and its labels are returned unchanged. The loss of a mixed row is the mean
    of its losses on both labels, weighted by their shares; for cross-entropy this is the loss on the mixed label. One
    share is sampled per batch.
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
    both = labels._replace(share=share), labels.take(order)._replace(share=1 - share)
    return mixed, tuple(sorted(both, key=lambda each: -each.share))


def mixup(activation: Tensor, order: Tensor, share: float) -> Tensor:
    """Return ``share * x + (1 - share) * x[order]`` as float32 (Zhang et al. 2018).

    On the output of frozen layers instead of pixels, this is manifold mixup (Verma et al. 2019) at one layer, the cut.
    """
    x = activation.float()
    return share * x + (1 - share) * x[order]


def cutmix(images: Tensor, order: Tensor, box: Box) -> tuple[Tensor, float]:
    """Return `images` (N, C, H, W) with the `box` of ``images[order]`` pasted in, and the remaining share of
    `images` (Yun et al. 2019).
    """
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])


def random_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """Return a box with a random centre that covers ``1 - share`` of an image, clipped at the borders."""
    side = math.sqrt(1 - share)
    h, w = side * height, side * width
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows = [min(max(round(value), 0), height) for value in (y - h / 2, y + h / 2)]
    columns = [min(max(round(value), 0), width) for value in (x - w / 2, x + w / 2)]
    return rows[0], columns[0], rows[1], columns[1]
