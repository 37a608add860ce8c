"""A growing probe against scikit-learn's ridge regression and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from transfer.adaptation.refinement import self_training
from transfer.adaptation.refinement.optimal_transport import balance_classes
from transfer.adaptation.refinement.self_training import grow_pseudo_labels, most_confident_rows


def draw(rows: int, classes: int, seed: int, width: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(classes, size=2 * classes)]
    return (
        rng.standard_normal((len(labels), width)), labels,
        rng.standard_normal((rows, width)), rng.dirichlet(np.full(classes, 0.5), rows),
    )  # fmt: skip


def slowly(source: np.ndarray, labels: np.ndarray, target: np.ndarray, q: np.ndarray, rounds: int) -> np.ndarray:
    source, target = (np.array([row / np.sqrt(row @ row) for row in x]) for x in (source, target))
    for share in np.linspace(0.2, 1, rounds):
        chosen = []
        for k in range(q.shape[1]):
            mine = sorted((i for i in range(len(q)) if q[i].argmax() == k), key=lambda i: -q[i].max())
            chosen += mine[: int(np.ceil(share * len(mine)))]
        x = np.concatenate([source, target[chosen]])
        y = np.eye(q.shape[1])[[*labels, *(q[i].argmax() for i in chosen)]]
        weights = np.array([1 / len(source)] * len(source) + [share / len(chosen)] * len(chosen)) / (1 + share)
        mean = sum(w * row for w, row in zip(weights, x, strict=True))
        variance = np.mean([w * (row - mean) ** 2 for w, row in zip(weights, x, strict=True)], 1).sum()
        probe = Ridge(self_training.RIDGE * variance).fit(x, y, sample_weight=weights)
        q = balance_classes(self_training.LOGIT_SCALE * probe.predict(target), self_training.BALANCE)
    return q


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rounds", [1, 4])
def test_equals_a_naive_implementation(rounds: int, seed: int) -> None:
    source, labels, target, q = draw(20, 3, seed)
    np.testing.assert_allclose(
        grow_pseudo_labels(source, labels, target, q, rounds=rounds),
        slowly(source, labels, target, q, rounds),
        atol=1e-6,
    )


@given(rows=st.integers(1, 25), classes=st.integers(2, 6), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_invariants(rows: int, classes: int, seed: int) -> None:
    source, labels, target, q = draw(rows, classes, seed)
    result = grow_pseudo_labels(source, labels, target, q, rounds=3)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.sum(1), 1)
    np.testing.assert_array_equal(grow_pseudo_labels(source, labels, target, q, rounds=3), result)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(rows), rng.permutation(classes)
    np.testing.assert_allclose(
        grow_pseudo_labels(source, labels, target[order], q[order], rounds=3), result[order], atol=1e-5
    )
    renamed = grow_pseudo_labels(source, np.argsort(names)[labels], target, q[:, names], rounds=3)
    np.testing.assert_allclose(renamed, result[:, names], atol=1e-5)


@given(rows=st.integers(1, 30), classes=st.integers(2, 5), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_the_most_confident_rows_of_each_class(rows: int, classes: int, share: float, seed: int) -> None:
    *_, q = draw(rows, classes, seed)
    chosen = most_confident_rows(q, share)
    called = q.argmax(1)
    for k in set(called):
        mine = np.flatnonzero(called == k)
        taken = np.intersect1d(mine, chosen)
        assert len(taken) == np.ceil(share * len(mine))
        left = np.setdiff1d(mine, taken)
        assert not len(left) or q[taken].max(1).min() >= q[left].max(1).max()
    assert len(most_confident_rows(q, 1.0)) == rows


def test_pseudo_labels_follow_a_rotation_of_the_target() -> None:
    """The target's classes are turned by 40°, which brings many of the first beyond the source's boundary at 45°."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    angles = (np.radians(90 * labels + turn + 8 * rng.standard_normal(200)) for turn in (0, 40))
    source, target = (np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32) for a in angles)
    sure = 1 / (1 + np.exp(10 * (target[:, 0] - target[:, 1])))
    q = np.stack([1 - sure, sure], 1)
    assert (q.argmax(1) == labels).mean() < 0.9
    assert (grow_pseudo_labels(source, labels, target, q).argmax(1) == labels).all()


def test_a_class_with_neither_rows_nor_probability() -> None:
    source, labels, target, q = draw(12, 3, 0)
    q = np.c_[q, np.zeros(12)]
    result = grow_pseudo_labels(source, labels, target, q)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result.sum(1), 1)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 6])
def test_rows_that_are_all_the_same(value: float, rows: int) -> None:
    x = np.full((6, 4), value, np.float32)
    result = grow_pseudo_labels(x, np.array([0, 1, 0, 1, 0, 1]), x[:rows], np.tile([0.6, 0.4], (rows, 1)))
    np.testing.assert_allclose(result.sum(1), 1)
    np.testing.assert_allclose(result, result[:1].repeat(rows, 0), atol=1e-6)
