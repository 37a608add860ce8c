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


def test_each_fold_is_predicted_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "COARSE_TOLERANCE", 1e-5)
    x, labels = draw()
    x = scale_features(x)
    folds = np.arange(24) // 3 % 4
    folds[:3] = -1  # these rows train every fold
    found, l2 = SeedProbe(x, labels, CLASSES + 1).predict_by_fold(folds)
    assert found.shape == (4, 60, CLASSES + 1)
    assert not found[:, :, CLASSES].any()  # a class without a label
    for fold in range(4):
        others = np.flatnonzero(folds != fold)
        expected = logistic(x.numpy()[others], labels[others], l2).predict_proba(x.numpy())
        np.testing.assert_allclose(found[fold, :, :CLASSES], expected, atol=2e-2)


def test_small_components_are_left_out_of_large_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = draw(width=200)
    probe = SeedProbe(scale_features(x), labels, CLASSES)
    projected, variances = probe._project(7)
    assert projected.shape == (60, 7)
    assert (variances.diff() >= 0).all()  # the largest, in order
    monkeypatch.setattr(seed_probe, "MAX_FOLD_PROBLEM", 24 * 2 * CLASSES)
    assert probe.predict_by_fold(np.arange(24) // CLASSES % 2)[0].shape == (2, 60, CLASSES)


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
