"""The composition against its equation, step by step and dense."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from transfer.adaptation.refinement.optimal_transport import balance_classes
from transfer.adaptation.refinement.product_of_experts import combine_experts

Said = list[tuple[float, np.ndarray]]


def draw(rows: int, classes: int, seed: int, width: int = 5) -> tuple[np.ndarray, Said]:
    rng = np.random.default_rng(seed)
    said = [(weight, np.log(rng.dirichlet(np.full(classes, 0.5), rows) + 1e-9)) for weight in (1.0, 0.5)]
    return rng.standard_normal((rows, width)), said


def smoothed(z: np.ndarray, q: np.ndarray, k: int, alpha: float) -> np.ndarray:
    cosines = z @ z.T
    np.fill_diagonal(cosines, -np.inf)
    weights = np.zeros_like(cosines)
    for i, row in enumerate(cosines):
        near = np.argsort(-row)[:k]
        weights[i, near] = np.maximum(row[near], 0) ** 3
    weights = np.maximum(weights, weights.T)
    root = 1 / np.sqrt(weights.sum(1))
    now = q
    for _ in range(10):
        now = alpha * (root[:, None] * weights * root) @ now + (1 - alpha) * q
    return now / now.sum(1, keepdims=True)


@pytest.mark.parametrize("balance", [0.0, 0.8])
@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_same_as_the_equation(rounds: int, balance: float) -> None:
    x, said = draw(40, 3, 0)
    z = x / np.sqrt((x**2).sum(1, keepdims=True))
    product = sum(weight * logq for weight, logq in said)
    q = smoothed(z, balance_classes(product, balance), 4, 0.7)
    for _ in range(rounds):
        centres = [sum(q[i, k] * z[i] for i in range(40)) for k in range(3)]
        cosines = np.array([[row @ c / np.sqrt(c @ c) for c in centres] for row in z])
        q = smoothed(z, balance_classes(product + 6 * cosines, balance), 4, 0.7)
    result = combine_experts(x, said, temperature=6, balance=balance, alpha=0.7, neighbours=4, rounds=rounds)
    np.testing.assert_allclose(result, q, atol=1e-4)


def test_without_smoothing_the_experts_are_multiplied_and_weight_zero_removes_one() -> None:
    x, said = draw(30, 4, 1)
    plain = combine_experts(x, said, temperature=0, balance=0, alpha=0)
    np.testing.assert_allclose(plain, softmax(said[0][1] + 0.5 * said[1][1], axis=1))
    np.testing.assert_allclose(combine_experts(x, [said[0], (0.0, said[1][1])]), combine_experts(x, said[:1]))


@given(rows=st.integers(1, 25), classes=st.integers(2, 6), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_invariants(rows: int, classes: int, seed: int) -> None:
    x, said = draw(rows, classes, seed)
    result = combine_experts(x, said, rounds=3)
    assert result.dtype == np.float64
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(1), 1)
    np.testing.assert_array_equal(combine_experts(x, said, rounds=3), result)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(rows), rng.permutation(classes)
    turned = combine_experts(x[order], [(w, logq[order]) for w, logq in said], rounds=3)
    np.testing.assert_allclose(turned, result[order], atol=1e-3)
    renamed = combine_experts(x, [(w, logq[:, names]) for w, logq in said], rounds=3)
    np.testing.assert_allclose(renamed, result[:, names], atol=1e-3)
    shifted = combine_experts(x, [(w, logq + rng.standard_normal((rows, 1))) for w, logq in said[::-1]], rounds=3)
    np.testing.assert_allclose(shifted, result, atol=1e-3)


def test_centroids_and_neighbours_correct_an_uninformative_expert() -> None:
    """Three clusters; the only expert calls each row of the third at random, but for a slight preference."""
    rng = np.random.default_rng(0)
    truth = np.arange(150) % 3
    x = np.eye(3)[truth] + 0.1 * rng.standard_normal((150, 3))
    logq = 2.0 * np.eye(3)[truth]
    logq[truth == 2] = rng.standard_normal((50, 3)) + np.array([0, 0, 0.5])
    assert (logq.argmax(1) == truth).mean() < 0.9
    assert (combine_experts(x, [(1.0, logq)]).argmax(1) == truth).all()


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 3), np.float32)])
def test_uninformative_rows(x: np.ndarray) -> None:
    logq = np.log(np.tile([0.6, 0.4], (len(x), 1)))
    np.testing.assert_allclose(combine_experts(x, [(1.0, logq)]).sum(1), 1)


def test_a_class_that_every_expert_rules_out() -> None:
    x, said = draw(20, 3, 2)
    ruled_out = [(w, np.c_[logq, np.full(20, -np.inf)]) for w, logq in said]
    result = combine_experts(x, ruled_out)
    np.testing.assert_allclose(result.sum(1), 1)
    assert result[:, 3].max() < 1e-6
