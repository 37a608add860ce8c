"""The seed probe against scikit-learn's logistic regression on the same scaled features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from transfer.errors import TransferError
from transfer.probes import lbfgs
from transfer.semi_supervised import seed_probe
from transfer.semi_supervised.seed_probe import SeedProbe, scale_features

CLASSES = 3


def draw(rows: int = 60, width: int = 20, labelled: int = 24) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(rows) % CLASSES
    x = rng.standard_normal((rows, width)) + 1.5 * np.eye(CLASSES, width)[truth]
    labels = np.where(np.arange(rows) < labelled, truth, -1)
    return torch.from_numpy(x).float(), labels


def logistic(x: np.ndarray, y: np.ndarray, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (l2 * len(y)), tol=1e-9, max_iter=10_000).fit(x, y)


@pytest.mark.parametrize("width", [5, 200])  # fewer and more features than labelled rows
def test_same_as_scikit_learn(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-5)
    x, labels = draw(width=width)
    x, known = scale_features(x), labels >= 0
    expected = logistic(x.numpy()[known], labels[known], 0.1).predict_proba(x.numpy())
    np.testing.assert_allclose(SeedProbe(x, labels, CLASSES).predict(0.1), expected, atol=1e-2)


def test_labelled_rows_that_are_not_used_have_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-5)
    x, labels = draw()
    x, used = scale_features(x), np.arange(24) % 4 > 0
    rows = np.flatnonzero(used)
    expected = logistic(x.numpy()[rows], labels[rows], 0.1).predict_proba(x.numpy())
    np.testing.assert_allclose(SeedProbe(x, labels, CLASSES).predict(0.1, used), expected, atol=1e-2)


@pytest.mark.parametrize("most", [400_000, 0])  # all folds, or the first one, choose the L2 value
def test_each_row_is_predicted_by_the_probe_without_its_fold(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)
    monkeypatch.setattr(seed_probe, "MAX_SEARCH_SIZE", most)
    x, labels = draw()
    x = scale_features(x)
    folds = np.arange(24) // 3 % 4
    folds[:3] = -1  # these rows train every fold
    found, l2 = SeedProbe(x, labels, CLASSES + 1).predict_held_out(folds)
    assert found.shape == (60, CLASSES + 1)
    assert not found[:, CLASSES].any()  # a class without a label
    by_fold = []
    for fold in range(4):
        others = np.flatnonzero(folds != fold)
        by_fold.append(logistic(x.numpy()[others], labels[others], l2).predict_proba(x.numpy()))
    expected = np.mean(by_fold, axis=0)
    for row in range(3, 24):
        expected[row] = by_fold[folds[row]][row]
    np.testing.assert_allclose(found[:, :CLASSES], expected, atol=2e-2)


def test_a_large_problem_chooses_the_l2_of_its_first_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = draw()
    probe = SeedProbe(scale_features(x), labels, CLASSES)
    folds = np.arange(24) // CLASSES % 4
    first = probe.choose_l2(np.where(folds, -1, 0))
    monkeypatch.setattr(seed_probe, "MAX_SEARCH_SIZE", 0)
    assert probe.choose_l2(folds) == first


def test_small_components_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = draw(width=200)
    probe = SeedProbe(scale_features(x), labels, CLASSES)
    projected, variances = probe._project(7)
    assert projected.shape == (60, 7)
    assert (variances.diff() >= 0).all()  # the largest, in order
    folds = np.arange(24) // CLASSES % 2
    whole = probe.predict_held_out(folds)[0]
    monkeypatch.setattr(seed_probe, "HELD_OUT_COMPONENTS", 7)
    assert not np.allclose(probe.predict_held_out(folds)[0], whole, atol=1e-3)


def test_of_many_classes_the_held_out_accuracy_is_that_of_a_probe() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(1200) % 150
    centres = rng.standard_normal((150, 400))
    x = torch.from_numpy(centres[labels] + 1.5 * rng.standard_normal((1200, 400))).float()
    folds = np.arange(1200) // 150 % 4
    found, l2 = SeedProbe(scale_features(x), labels, 150).predict_held_out(folds)
    scaled, right = scale_features(x).numpy(), []
    for fold in range(4):
        model = logistic(scaled[folds != fold], labels[folds != fold], l2)
        right += (model.predict(scaled[folds == fold]) == labels[folds == fold]).tolist()
    assert (found.argmax(1) == labels).mean() > np.mean(right) - 0.05


def test_features_that_are_not_finite_are_refused() -> None:
    x, _ = draw()
    x[3, 1] = float("nan")
    with pytest.raises(TransferError, match="features of 1 of 60 training images are NaN"):
        scale_features(x)


def test_rows_count_by_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "FINE_TOLERANCE", 1e-5)
    x, labels = draw()
    x, known = scale_features(x), labels >= 0
    weights = np.random.default_rng(1).random(len(labels))
    found = SeedProbe(x, labels, CLASSES, weights).predict(0.1)
    # scikit-learn's C times the sum of weighted losses: C = 1 / (l2 * sum of weights)
    model = LogisticRegression(C=1 / (0.1 * weights[known].sum()), tol=1e-9, max_iter=10_000)
    expected = model.fit(x.numpy()[known], labels[known], weights[known]).predict_proba(x.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-2)
