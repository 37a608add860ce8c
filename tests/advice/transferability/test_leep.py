import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.advice.transferability.folds import assign_folds
from transfer.advice.transferability.leep import explain_entropy, leep, nce


def drawn(seed: int, n: int = 40, original: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(original, 0.3), size=n), rng.integers(0, classes, n)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_leep_agrees_with_the_formula(seed: int) -> None:
    p, labels = drawn(seed)
    n, k = p.shape
    joint = {(y, z): sum(p[i, z] for i in range(n) if labels[i] == y) / n for y in set(labels) for z in range(k)}
    marginal = [sum(joint[y, z] for y in set(labels)) for z in range(k)]
    expected = sum(math.log(sum(joint[labels[i], z] / marginal[z] * p[i, z] for z in range(k))) for i in range(n)) / n
    assert leep(p, labels) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_nce_is_minus_the_conditional_entropy(seed: int) -> None:
    p, labels = drawn(seed)
    z = p.argmax(1)
    n = len(z)
    expected = 0.0
    for i in set(z):
        for j in set(labels):
            both, one = sum((z == i) & (labels == j)) / n, sum(z == i) / n
            expected += both * math.log(both / one) if both else 0.0
    assert nce(z, labels) == pytest.approx(expected, abs=1e-9)
    assert nce(z * 10, labels) == pytest.approx(nce(z, labels))
    share = np.bincount(labels) / n
    entropy = -sum(s * math.log(s) for s in share if s)
    assert explain_entropy(nce(z, labels), labels) == pytest.approx(1 + expected / entropy)
    assert -1e-9 <= explain_entropy(nce(z, labels), labels) <= 1 + 1e-9


@pytest.mark.parametrize("original", [20, 1000])
def test_random_labels_gain_nothing_across_folds(original: int) -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.full(original, 0.02), size=300), rng.integers(0, 10, 300)
    folds = assign_folds(labels)
    assert explain_entropy(leep(p, labels), labels) > 0.05  # in-sample, chance looks like knowledge
    assert explain_entropy(nce(p.argmax(1), labels), labels) > 0.05
    assert explain_entropy(leep(p, labels, folds), labels) == pytest.approx(0, abs=0.01)
    assert explain_entropy(nce(p.argmax(1), labels, folds), labels) == pytest.approx(0, abs=0.01)


def test_an_informative_classifier_explains_across_folds() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 10
    p = 0.9 * np.eye(40)[labels * 3] + 0.1 * rng.dirichlet(np.ones(40), size=300)
    folds = assign_folds(labels)
    assert 0.8 < explain_entropy(leep(p, labels, folds), labels) < explain_entropy(leep(p, labels), labels) < 1
    assert explain_entropy(nce(labels * 3, labels, folds), labels) > 0.99
    assert explain_entropy(nce(labels * 3, labels), labels) == 1.0


def test_each_fold_is_predicted_by_the_others() -> None:
    """One prior alone, written out."""
    p, labels = drawn(5)
    folds = assign_folds(labels, folds=4)
    best = -math.inf
    for prior in (0.01, 0.1, 1, 10, 100, 1000):
        total = 0.0
        for i in range(len(p)):
            rest = [j for j in range(len(p)) if folds[j] != folds[i]]
            share = {y: (sum(labels[j] == y for j in rest) + 1) / (len(rest) + 3) for y in range(3)}
            total += math.log(
                sum(
                    p[i, z]
                    * (sum(p[j, z] for j in rest if labels[j] == labels[i]) + prior * share[labels[i]])
                    / (sum(p[j, z] for j in rest) + prior)
                    for z in range(p.shape[1])
                )
            )
        best = max(best, total / len(p))
    assert leep(p, labels, folds) == pytest.approx(best, rel=1e-9)


def test_a_class_missing_from_the_other_folds_is_finite() -> None:
    p, labels = drawn(1, n=20)
    labels[0] = 3
    assert math.isfinite(leep(p, labels, assign_folds(labels)))


def test_unlabelled_rows_are_ignored() -> None:
    p, labels = drawn(2)
    labels[::4] = -1
    known = labels >= 0
    folds = assign_folds(labels)
    assert leep(p, labels) == leep(p[known], labels[known])
    assert leep(p, labels, folds) == leep(p[known], labels[known], folds[known])
    assert explain_entropy(-0.5, labels) == explain_entropy(-0.5, labels[known])


def test_a_single_class_has_no_entropy() -> None:
    assert explain_entropy(0.0, np.zeros(5, int)) == 0.0
