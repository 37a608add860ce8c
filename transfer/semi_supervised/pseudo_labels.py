"""Pseudo-labels of unlabelled images with weights, by label propagation (Iscen et al. 2019)."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from transfer.semi_supervised.choose import PropagationChoice
from transfer.semi_supervised.information import project_features
from transfer.semi_supervised.knn_graph import NearestNeighbours
from transfer.semi_supervised.propagation import compute_certainty, spread_labels
from transfer.semi_supervised.seed_probe import SeedProbe

MIN_WEIGHT = 1e-3  # a pseudo-label that counts less is left out


@dataclass(frozen=True)
class PropagatedLabels:
    """Labels of all rows, and how much each counts.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        Given labels, else propagated ones; -1 for none.
    weights : ndarray of float32, shape (N,)
        1 for given labels, the certainty of propagated ones, 0 for none.
    agreement : float
        Share of the propagated labels that the plain probe predicts as well.
    """

    labels: np.ndarray
    weights: np.ndarray
    agreement: float


def propagate_pseudo_labels(
    x: Tensor, labels: np.ndarray, classes: int, choice: PropagationChoice, neighbours: NearestNeighbours
) -> PropagatedLabels:
    """Return pseudo-labels of the rows without a label under the settings of `choice`.

    Parameters
    ----------
    x, labels, classes, neighbours
        As in :func:`transfer.semi_supervised.choose.choose_settings`.
    choice : PropagationChoice
        What that function returned.
    """
    given = labels >= 0
    if choice.settings is None or given.all():
        return PropagatedLabels(labels, given.astype(np.float32), 1.0)
    settings, probe = choice.settings, SeedProbe(x, labels, classes)
    predicted = probe.predict(choice.l2)
    z = project_features(x, classes) if settings.refined else None
    probabilities = spread_labels(settings, neighbours, predicted, labels, z)
    weights = np.where(given, 1.0, compute_certainty(probabilities))
    counts = ~given & (weights >= MIN_WEIGHT)
    found = np.where(given, labels, np.where(counts, probabilities.argmax(1), -1))
    agreement = float((found == predicted.argmax(1))[counts].mean()) if counts.any() else 1.0
    return PropagatedLabels(found, np.where(given | counts, weights, 0.0).astype(np.float32), agreement)
