"""Held-out labels against probes and propagation that are run anew for each fold."""

import numpy as np
import pytest
import torch

from transfer.semi_supervised.comparison import HeldOutLabels
from transfer.semi_supervised.information import project_features
from transfer.semi_supervised.knn_graph import find_neighbours
from transfer.semi_supervised.propagation import PropagationSettings, spread_labels
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

CLASSES = 3
SETTINGS = [PropagationSettings(5, 0.8, 0.3), PropagationSettings(5, 0.8, 0.0), PropagationSettings(5, 0.8, 0.03, True)]


@pytest.fixture
def data() -> HeldOutLabels:
    rng = np.random.default_rng(0)
    truth = np.arange(80) % CLASSES
    x = scale_features(torch.from_numpy(rng.standard_normal((80, 12)) + 1.2 * np.eye(CLASSES, 12)[truth]).float())
    labels = np.where(rng.permutation(80) < 24, truth, -1)
    folds = np.arange(24) % 3
    folds[5] = -1  # trained on in every fold
    return HeldOutLabels(
        SeedProbe(x, labels, CLASSES), labels, find_neighbours(x.numpy(), 5), folds, np.arange(0, 24, 2), 0.1
    )


def without(data: HeldOutLabels, fold: int) -> np.ndarray:
    """The labels that a fold leaves."""
    labels = data.labels.copy()
    labels[data.probe.labelled[data.folds == fold]] = -1
    return labels


@pytest.mark.parametrize("settings", [None, *SETTINGS])
def test_each_label_as_it_is_predicted_without_its_fold(
    data: HeldOutLabels, settings: PropagationSettings | None
) -> None:
    expected, x = [], data.probe.all
    for each in data.held:
        row, labels = data.probe.labelled[each], without(data, data.folds[each])
        predicted = SeedProbe(x, labels, CLASSES).predict(0.1)
        if settings:
            predicted = spread_labels(settings, data.neighbours, predicted, labels, project_features(x, CLASSES))
        expected.append(predicted[row].argmax() == data.labels[row])
    assert data.mark_correct(settings).tolist() == expected
    assert 0 < sum(expected) < len(expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_from_all_labels(data: HeldOutLabels, settings: PropagationSettings) -> None:
    predicted, z = data.probe.predict(0.1), project_features(data.probe.all, CLASSES)
    expected = spread_labels(settings, data.neighbours, predicted, data.labels, z)
    np.testing.assert_array_equal(data.spread(settings), expected)
