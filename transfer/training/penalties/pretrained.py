"""A frozen copy of the pretrained network, beside the one in training."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from transfer.feature_cache import Feed
from transfer.heads.heads import Heads
from transfer.model import TransferModel


class PretrainedCopy:
    """A frozen copy of a model's backbone, with the same activations as its input.

    `model` is not trained yet; `rows` are the training rows; `labels`, by head, are those of all rows of the table.
    """

    def __init__(self, model: TransferModel, rows: np.ndarray, labels: dict[str, Tensor]) -> None:
        backbone = copy.deepcopy(model.backbone)
        self.model = TransferModel(backbone, Heads([], backbone.width), cut_precision=model.cut_precision)
        self.model.eval().requires_grad_(False)
        self.rows, self.labels = rows, labels
        self._feed: Feed | None = None

    def attach(self, model: TransferModel, feed: Feed) -> None:
        """Cut this copy where `model` is cut; `feed` yields its activations."""
        self.model.cut, self._feed = model.cut, feed

    def features(self, activation: Tensor) -> Tensor:
        """Return pooled features (N, width) of the pretrained network."""
        return self.model.features(activation)

    def gather_batch(self, rows: Tensor, count: int, sizes: tuple[int, ...] | None) -> Tensor:
        """Return all `count` rows of a batch, gathered from processes with `sizes` rows each; this one has `rows`."""
        return self._feed.gather_batch(rows, count, sizes) if self._feed else rows

    @torch.no_grad()
    def pooled(self) -> tuple[Tensor, Tensor]:
        """Return the training rows (N,) and their pooled features (N, width)."""
        parts = [(rows, self.features(activation).float()) for rows, activation in self.batches()]
        return torch.cat([rows for rows, _ in parts]), torch.cat([features for _, features in parts])

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (rows, activations) of all training rows, without augmentation."""
        assert self._feed
        for rows, activation in self._feed.batches(self.rows):
            yield torch.from_numpy(rows), activation
