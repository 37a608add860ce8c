import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.advice.transferability.hscore import compute_max_hscore, hscore


def written_out(x: np.ndarray, labels: np.ndarray) -> float:
    """The shrunk H-score by loops over images: Ledoit and Wolf 2004, Lemma 3.2 ff., then the trace."""
    n, width = x.shape
    x = x - x.mean(0)
    sample = sum(np.outer(row, row) for row in x) / n
    level = np.trace(sample) / width
    target = level * np.eye(width)
    spread = np.square(sample - target).sum() / width
    error = min(sum(np.square(np.outer(row, row) - sample).sum() for row in x) / n**2 / width, spread)
    shrinkage = error / spread if spread else 0.0
    means = np.stack([x[labels == c].mean(0) for c in labels])
    between = means.T @ means / n
    return float(np.trace(np.linalg.inv((1 - shrinkage) * sample + shrinkage * target) @ ((1 - shrinkage) * between)))


@given(st.integers(0, 10_000), st.integers(6, 30), st.integers(2, 12))
@settings(max_examples=25, deadline=None)
def test_it_agrees_with_the_formula(seed: int, n: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, width)) + 2 * rng.normal(size=(3, width))[labels] + 5
    value = hscore(x, labels)
    assert value == pytest.approx(written_out(x, labels), rel=1e-6)
    assert 0 <= value <= compute_max_hscore(labels, width) + 1e-9
    turned = np.linalg.qr(rng.normal(size=(width, width)))[0]
    assert hscore(3 * x @ turned - 7, labels) == pytest.approx(value, rel=1e-6)


def test_with_many_images_it_is_the_plain_h_score() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 4
    x = rng.normal(size=(20_000, 3)) @ np.diag([1.0, 2.0, 5.0]) + rng.normal(size=(4, 3))[labels]
    means = np.stack([x[labels == c].mean(0) for c in range(4)])[labels]
    plain = np.trace(np.linalg.solve(np.cov(x.T), np.cov(means.T)))
    assert hscore(x, labels) == pytest.approx(plain, rel=0.01)


def test_minimum_and_maximum() -> None:
    labels = np.arange(400) % 3
    rng = np.random.default_rng(0)
    assert hscore(np.eye(3)[labels][:, :2] + 1e-4 * rng.normal(size=(400, 2)), labels) == pytest.approx(2, abs=0.05)
    assert hscore(np.ones((400, 5)), labels) == 0.0
    assert hscore(rng.normal(size=(400, 5)), np.zeros(400, int)) == pytest.approx(0.0, abs=1e-9)
    assert (
        compute_max_hscore(labels, 5),
        compute_max_hscore(labels, 1),
        compute_max_hscore(np.array([-1, -1]), 5),
    ) == (2, 1, 0)


def test_unlabelled_rows_are_ignored() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 4)), rng.integers(-1, 3, 40)
    assert hscore(x, labels) == hscore(x[labels >= 0], labels[labels >= 0])
    assert hscore(x, np.full(40, -1)) == 0.0


@given(
    st.integers(0, 999), st.integers(1, 12), st.sampled_from([1, 3, 40]), st.sampled_from([1e-200, 1e-20, 1.0, 1e150])
)
@settings(max_examples=100, deadline=None)
def test_few_or_equal_images_are_between_0_and_the_maximum(seed: int, n: int, width: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = scale * rng.normal(size=(max(n // 2, 1), width))[rng.integers(0, max(n // 2, 1), n)]
    assert -1e-9 <= hscore(x, labels) <= compute_max_hscore(labels, width) * (1 + 1e-6) + 1e-9
    assert hscore(np.repeat(x[:1], n, 0), labels) == 0.0


def test_two_images_of_two_classes_are_told_apart() -> None:
    """Ledoit and Wolf shrink nothing here: the covariance has no inverse."""
    assert hscore(np.random.default_rng(0).normal(size=(2, 50)), np.array([0, 1])) == pytest.approx(1)
