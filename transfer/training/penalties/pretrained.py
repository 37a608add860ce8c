"""The pretrained network as it was, beside the one that learns."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from transfer.feature_cache import Feed
from transfer.heads.heads import Heads
from transfer.model import TransferModel


class PretrainedCopy:
    """A copy of a model's backbone, which never learns; it goes on from the same activations.

    Parameters
    ----------
    model : TransferModel
        As it is before training.
    rows : ndarray of int64
        What is learned from.
    labels : dict of str to Tensor
        By head, of all rows of the table.
    """

    def __init__(self, model: TransferModel, rows: np.ndarray, labels: dict[str, Tensor]) -> None:
        backbone = copy.deepcopy(model.backbone)
        self.model = TransferModel(backbone, Heads([], backbone.width), cut_precision=model.cut_precision)
        self.model.eval().requires_grad_(False)
        self.rows, self.labels = rows, labels
        self._feed: Feed | None = None

    def attach(self, model: TransferModel, feed: Feed) -> None:
        """Go on from where `model` is cut now, which `feed` gives."""
        self.model.cut, self._feed = model.cut, feed

    def features(self, activation: Tensor) -> Tensor:
        """Return pooled features (N, width) of the pretrained network."""
        return self.model.features(activation)

    def whole(self, own: Tensor, count: int, sizes: tuple[int, ...] | None) -> Tensor:
        """Return all `count` rows of a batch, of which this process may have its `own` alone (`sizes`: each's)."""
        return self._feed.gather_batch(own, count, sizes) if self._feed else own

    @torch.no_grad()
    def pooled(self) -> tuple[Tensor, Tensor]:
        """Return the rows (N,) that are learned from, and their pooled features (N, width)."""
        parts = [(rows, self.features(activation).float()) for rows, activation in self.batches()]
        return torch.cat([rows for rows, _ in parts]), torch.cat([features for _, features in parts])

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (rows, activations) of the evaluation view of all that is learned from."""
        assert self._feed
        for rows, activation in self._feed.batches(self.rows):
            yield torch.from_numpy(rows), activation
