"""Ensembles: the mean predictions of several models, or of several snapshots of one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from transfer.backbones.weights import set_tensors
from transfer.config.train import ViewConfig
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.averages.tta import predict_views
from transfer.evaluation.label_free.expected_accuracy import AccuracyReference, ExpectedAccuracy
from transfer.evaluation.label_free.images import expect_accuracy_of_rows
from transfer.evaluation.predictions import Predictions, predict_rows, target_tensors
from transfer.evaluation.uncertainty.unknown import HEAD, UnknownScore
from transfer.feature_cache import TrunkCache
from transfer.runs.checkpoint import Models


@dataclass(frozen=True)
class TestSet:
    """Test images, and the views in which models see them."""

    table: ImageTable
    digests: np.ndarray  # the sha256 of each image of `table`
    rows: np.ndarray  # of `table`, to predict
    cache: TrunkCache
    view: ViewConfig  # test-time augmentation; without it, features are read from the cache
    batch_size: int
    workers: int | None = None  # threads that decode images

    def predict(self, models: Models) -> Predictions:
        """Return the predictions of all networks of a run, by head."""
        predictions: Predictions = {}
        table, how = self.table, {"workers": self.workers}
        for model in models.values():
            if self.view.several:
                predictions |= predict_views(model, table.paths[self.rows], self.view, **how)
            else:
                feed = self.cache.feed(model, table.paths, self.digests, batch_size=self.batch_size, **how)
                predictions |= predict_rows(model, feed, self.rows, target_tensors(table, model))[0]
        return predictions

    def score_unknown(self, models: Models, unknown: UnknownScore) -> np.ndarray:
        """Return how strange each image is, :meth:`UnknownScore.rate` (N,), as it is: without views."""
        model = next(model for model in models.values() if HEAD in model.heads.specs)
        paths, workers = self.table.paths, self.workers
        feed = self.cache.feed(model, paths, self.digests, batch_size=self.batch_size, workers=workers)
        return unknown.score_rows(model, feed, self.rows)

    def expect_accuracy(
        self,
        models: Models,
        references: Mapping[str, AccuracyReference],
        rows: Mapping[str, np.ndarray],
        ensemble: Predictions | None = None,
    ) -> dict[str, ExpectedAccuracy]:
        """Return the accuracy that each head of `models` is expected to have on its `rows`, without views.

        With the predictions of an `ensemble` that they are a member of, that of the ensemble.
        """
        found: dict[str, ExpectedAccuracy] = {}
        for model in models.values():
            feed = self.cache.feed(
                model, self.table.paths, self.digests, batch_size=self.batch_size, workers=self.workers
            )
            found |= expect_accuracy_of_rows(model, feed, rows, references, ensemble)
        return found


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Return the mean of the members' probabilities (of their values, for numbers), by head."""
    return {name: np.mean([predictions[name] for predictions in members], axis=0) for name in members[0]}


def load_snapshots(models: Models, snapshots: Mapping[str, Sequence[Mapping[str, Tensor]]]) -> Iterator[Models]:
    """Yield `models` with the weights of each snapshot in turn; afterwards they have their previous weights.

    `snapshots` has for each part of `models` the trained tensors of each snapshot. The models are the same objects each
    time: use them before taking the next snapshot.
    """
    for members in zip(*snapshots.values(), strict=False):  # a part that stopped early has fewer
        with ExitStack() as stack:
            for part, weights in zip(snapshots, members, strict=True):
                stack.enter_context(load_temporarily(models[part], weights))
            yield models


@contextmanager
def load_temporarily(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give `network` the tensors `weights` within the context."""
    state = network.state_dict()
    previous = {name: state[name].clone() for name in weights}
    try:
        set_tensors(network, weights)
        yield
    finally:
        set_tensors(network, previous)


def check_same_heads(runs: Sequence[Path], loaded: Sequence[Models]) -> None:
    """Raise a TransferError if one of `runs` has other heads or classes than the first."""
    first, *others = (
        {name: (spec.kind, spec.classes) for model in models.values() for name, spec in model.heads.specs.items()}
        for models in loaded
    )
    for run, heads in zip(runs[1:], others, strict=True):
        different = sorted(name for name in first.keys() | heads.keys() if first.get(name) != heads.get(name))
        if different:
            raise TransferError(
                f"{run} and {runs[0]} cannot be evaluated as an ensemble: they differ in the head {different[0]}; "
                "give runs with the same heads and classes"
            )
