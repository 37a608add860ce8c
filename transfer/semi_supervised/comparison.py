"""Held-out labels as the probe predicts them, and as propagation does without them."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from transfer.probes.lbfgs import DEFAULT_PROBE_L2
from transfer.semi_supervised.information import project_features
from transfer.semi_supervised.knn_graph import NearestNeighbours
from transfer.semi_supervised.propagation import PropagationSettings, make_seeds, solve_propagation, spread_labels
from transfer.semi_supervised.seed_probe import SeedProbe


@dataclass(frozen=True, eq=False)
class HeldOutLabels:
    """Labelled rows that are held out in turn.

    Parameters
    ----------
    probe : SeedProbe
        On all labelled rows of its features, (N, width).
    labels : ndarray of int64, shape (N,)
        -1 where unknown.
    neighbours : NearestNeighbours
        Of all rows.
    folds : ndarray of int64, shape (L,)
        The fold of each labelled row; -1 for those that are never held out.
    held : ndarray of int64, shape (M,)
        Which labelled rows are predicted.
    l2 : float
        Of the probes.
    """

    probe: SeedProbe
    labels: np.ndarray
    neighbours: NearestNeighbours
    folds: np.ndarray
    held: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    l2: float = DEFAULT_PROBE_L2

    def mark_correct(self, settings: PropagationSettings | None = None) -> np.ndarray:
        """Return which of the `held` rows propagation by `settings` predicts, or the probe without; bool (M,)."""
        scores = np.zeros((len(self.held), self.probe.classes))
        reach = None if settings is None or settings.refined else self._reach(settings)
        for fold, predicted in self._predicted.items():
            tested, labels = self.folds[self.held] == fold, self.labels.copy()
            labels[self.probe.labelled[self.folds == fold]] = -1
            if settings is None:
                scores[tested] = predicted[self._rows[tested]]
            elif reach is not None:
                scores[tested] = reach[:, tested].T @ make_seeds(settings, predicted, labels)
            else:
                spread = spread_labels(settings, self.neighbours, predicted, labels, self.projected)
                scores[tested] = spread[self._rows[tested]]
        return scores.argmax(1) == self.labels[self._rows]

    def spread(self, settings: PropagationSettings) -> np.ndarray:
        """Return class probabilities (N, K) of all rows, spread from all labels."""
        predicted = self.probe.predict(self.l2) if settings.prior else np.zeros((len(self.labels), self.probe.classes))
        return spread_labels(settings, self.neighbours, predicted, self.labels, self.projected)

    @cached_property
    def projected(self) -> Tensor:
        """The features as :func:`project_features` returns them."""
        return project_features(self.probe.all, self.probe.classes)

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.probe.labelled[self.held]

    @cached_property
    def _predicted(self) -> dict[int, np.ndarray]:
        """The probabilities (N, K) by the probe without each fold."""
        folds = np.unique(self.folds[self.held]).tolist()
        return {fold: self.probe.predict(self.l2, self.folds != fold) for fold in folds}

    def _reach(self, settings: PropagationSettings) -> np.ndarray:
        """Return how much a seed of each row counts in the held-out rows, (N, M).

        The solution operator is symmetric: a column for each held-out row serves every fold's seeds.
        """
        source = np.zeros((len(self.labels), len(self.held)))
        source[self._rows, np.arange(len(self.held))] = 1
        return solve_propagation(self.neighbours.build_graph(settings.neighbours), source, settings.alpha)
