"""Several models that answer as one: the mean of what each says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from transfer.config.train import ViewConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.predictions import Predictions, predict_rows, target_tensors
from transfer.evaluation.tta import predict_views
from transfer.feature_cache import TrunkCache
from transfer.runs.checkpoint import Models


@dataclass(frozen=True)
class TestSet:
    """Rows of a table to be answered, and how they are looked at.

    Parameters
    ----------
    digests : ndarray of str
        The sha256 of each image of `table`.
    rows : ndarray of int64
    """

    table: ImageTable
    digests: np.ndarray
    rows: np.ndarray
    cache: TrunkCache
    view: ViewConfig
    batch_size: int
    workers: int | None = None

    def predict(self, models: Models) -> Predictions:
        """Return what the parts of `models` answer, by head."""
        found: Predictions = {}
        for model in models.values():
            if self.view.several:
                found |= predict_views(model, self.table.paths[self.rows], self.view, workers=self.workers)
            else:
                feed = self.cache.feed(
                    model, self.table.paths, self.digests, batch_size=self.batch_size, workers=self.workers
                )
                found |= predict_rows(model, feed, self.rows, target_tensors(self.table, model))[0]
        return found


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Return the mean of the members' probabilities (of their values, for regression), by head."""
    return {name: np.mean([answers[name] for answers in members], axis=0) for name in members[0]}


def load_snapshots(models: Models, kept: Mapping[str, Sequence[Mapping[str, Tensor]]]) -> Iterator[Models]:
    """Yield `models` with the weights of each snapshot in turn; afterwards they have their own again.

    Parameters
    ----------
    models : dict of str to TransferModel
    kept : mapping of str to sequence of mapping of str to Tensor
        For each part of `models`, snapshots of what may move.
    """
    for together in zip(*kept.values(), strict=False):  # a part that was stopped early has fewer
        weights = dict(zip(kept, together, strict=True))
        own = {part: {name: models[part].state_dict()[name].clone() for name in weights[part]} for part in weights}
        try:
            for part, some in weights.items():
                models[part].load_state_dict(some, strict=False)
            yield models
        finally:
            for part, some in own.items():
                models[part].load_state_dict(some, strict=False)


def check_same_heads(runs: Sequence[Path], loaded: Sequence[Models]) -> None:
    """Refuse runs whose answers cannot be averaged.

    Raises
    ------
    TransferError
        One has other heads or classes than the first.
    """
    first, *others = (
        {name: (spec.kind, spec.classes) for model in models.values() for name, spec in model.heads.specs.items()}
        for models in loaded
    )
    for run, heads in zip(runs[1:], others, strict=True):
        unlike = sorted(name for name in first.keys() | heads.keys() if first.get(name) != heads.get(name))
        if unlike:
            raise TransferError(f"{run} and {runs[0]} cannot answer together: {unlike[0]} is not the same in both")
