"""Pseudo-labels against the dense closed form, and what they leave alone."""

import numpy as np
import torch
from dense_graph import build_dense_graph

from transfer.semi_supervised import pseudo_labels
from transfer.semi_supervised.choose import CANDIDATES, MOST_NEIGHBOURS, PropagationChoice
from transfer.semi_supervised.knn_graph import find_neighbours
from transfer.semi_supervised.pseudo_labels import PropagatedLabels
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

CLASSES = 3


def draw(rows: int = 60, each: int = 2) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(rows) % CLASSES
    x = rng.standard_normal((rows, 12)) + 2.2 * np.eye(CLASSES, 12)[truth]
    return scale_features(torch.from_numpy(x).float()), np.where(np.arange(rows) < each * CLASSES, truth, -1), truth


def propagate_pseudo_labels(
    x: torch.Tensor, labels: np.ndarray, classes: int, choice: PropagationChoice
) -> PropagatedLabels:
    neighbours = find_neighbours(x.numpy(), MOST_NEIGHBOURS)
    return pseudo_labels.propagate_pseudo_labels(x, labels, classes, choice, neighbours)


def test_same_as_the_dense_closed_form() -> None:
    x, labels, truth = draw()
    for settings in CANDIDATES:
        found = propagate_pseudo_labels(x, labels, CLASSES, PropagationChoice(settings, 0.1))
        predicted = SeedProbe(x, labels, CLASSES).predict(0.1)
        seeds = np.where(labels[:, None] >= 0, np.eye(CLASSES)[labels], settings.prior * predicted)
        graph = build_dense_graph(x.numpy(), settings.neighbours)
        scores = np.linalg.solve(np.eye(len(x)) - settings.alpha * graph, seeds)
        p = scores / scores.sum(1, keepdims=True)
        certainty = 1 + (p * np.log(p)).sum(1) / np.log(CLASSES)
        added = labels < 0
        assert found.labels[added].tolist() == p.argmax(1)[added].tolist()
        np.testing.assert_allclose(found.weights[added], certainty[added], atol=1e-3)
        assert found.agreement == (p.argmax(1) == predicted.argmax(1))[added].mean()
        assert (found.labels == truth)[added].mean() > 0.6


def test_given_labels_stay_with_their_whole_weight() -> None:
    x, labels, _ = draw()
    wrong = labels.copy()
    wrong[0] = 2  # however its neighbours are labelled
    found = propagate_pseudo_labels(x, wrong, CLASSES, PropagationChoice(CANDIDATES[0]))
    assert found.labels[:6].tolist() == wrong[:6].tolist()
    assert found.weights[:6].tolist() == [1.0] * 6


def test_without_settings_or_unlabelled_rows_nothing_is_added() -> None:
    x, labels, truth = draw()
    none = propagate_pseudo_labels(x, labels, CLASSES, PropagationChoice(None))
    assert none.labels.tolist() == labels.tolist()
    assert none.weights.tolist() == (labels >= 0).astype(float).tolist()
    whole = propagate_pseudo_labels(x, truth, CLASSES, PropagationChoice(CANDIDATES[0]))
    assert whole.labels.tolist() == truth.tolist()


def test_labels_that_count_next_to_nothing_are_left_out(monkeypatch) -> None:
    x, labels, _ = draw()
    monkeypatch.setattr(pseudo_labels, "MIN_WEIGHT", 0.5)
    found = propagate_pseudo_labels(x, labels, CLASSES, PropagationChoice(CANDIDATES[2]))
    assert (found.labels < 0).any()
    assert (found.weights[found.labels < 0] == 0).all()
    assert (found.weights[found.labels >= 0] >= 0.5).all()
