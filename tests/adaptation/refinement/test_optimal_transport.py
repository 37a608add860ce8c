"""Transport against Sinkhorn's loops, soft balance against its objective, and a shift that transport undoes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax

from transfer.adaptation.refinement.optimal_transport import balance_classes, transport_labels

SIZES = {"rows": st.integers(1, 25), "classes": st.integers(2, 6), "seed": st.integers(0, 999)}


def draw(rows: int, classes: int, seed: int, width: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source rows with labels, each class at least once, and target rows."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(classes, size=2 * classes)]
    return rng.standard_normal((len(labels), width)), labels, rng.standard_normal((rows, width))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


@pytest.mark.parametrize("regularisation", [0.05, 0.1, 0.5])
def test_labels_travel_along_the_coupling(regularisation: float) -> None:
    source, labels, target = draw(7, 3, 0)
    cost = np.array([[1 - cosine(a, b) for b in target] for a in source])
    kernel = np.exp(-cost / (regularisation * np.median(cost)))
    a = np.array([1 / 3 / (labels == label).sum() for label in labels])
    u, v = np.ones(len(source)), np.ones(7)
    for _ in range(5000):
        u = a / (kernel @ v)
        v = 1 / 7 / (kernel.T @ u)
    expected = np.zeros((7, 3))
    for i, label in enumerate(labels):
        for j in range(7):
            expected[j, label] += 7 * u[i] * kernel[i, j] * v[j]
    result = transport_labels(source, labels, target, 3, regularisation=regularisation)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@given(**SIZES)
@settings(max_examples=40, deadline=None)
def test_invariants_of_propagation(rows: int, classes: int, seed: int) -> None:
    source, labels, target = draw(rows, classes, seed)
    result = transport_labels(source, labels, target, classes)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.sum(1), 1)
    np.testing.assert_allclose(result.mean(0), 1 / classes, atol=1e-3)  # classes weigh the same
    rng = np.random.default_rng(seed)
    order, turn, names = rng.permutation(rows), rng.permutation(len(source)), rng.permutation(classes)
    np.testing.assert_allclose(transport_labels(source, labels, target[order], classes), result[order], atol=1e-6)
    np.testing.assert_allclose(transport_labels(source[turn], labels[turn], target, classes), result, atol=1e-6)
    np.testing.assert_allclose(transport_labels(source, names[labels], target, classes)[:, names], result, atol=1e-6)
    np.testing.assert_allclose(transport_labels(3 * source, labels, 7 * target, classes), result, atol=1e-6)


def test_a_shift_is_undone() -> None:
    """Both classes of the target are turned by 50°, so that the first is nearer to the source's second."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    source, target = (np.radians(90 * labels + turn + 5 * rng.standard_normal(200)) for turn in (0, 50))
    source, target = (np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32) for a in (source, target))
    nearest = labels[(target @ source.T).argmax(1)]
    assert (nearest == labels).mean() < 0.7
    assert (transport_labels(source, labels, target, 2).argmax(1) == labels).all()


def test_a_class_without_source_rows_gets_probability_zero() -> None:
    source, labels, target = draw(6, 2, 3)
    result = transport_labels(source, labels, target, 4)
    assert not result[:, 2:].any()
    np.testing.assert_allclose(result.sum(1), 1)


@pytest.mark.parametrize("regularisation", [1e-6, 0.1, 1e3])
@pytest.mark.parametrize("kind", ["same", "zero", "one", "far"])
def test_extreme_logits_stay_finite(kind: str, regularisation: float) -> None:
    source, labels, target = draw(5, 3, 4)
    match kind:
        case "same":
            source, target = np.ones_like(source), np.ones_like(target)
        case "zero":
            target = np.zeros_like(target)
        case "one":
            target = target[:1]
        case "far":
            source, target = np.abs(source), -np.abs(target)
            target[0] = source[0]
    result = transport_labels(source, labels, target, 3, regularisation=regularisation)
    np.testing.assert_allclose(result.sum(1), 1)


def objective(q: np.ndarray, p: np.ndarray, strength: float) -> float:
    mean = q.mean(0)
    return float(
        np.mean([sum(q[i] * np.log(q[i] / p[i])) for i in range(len(p))])
        + strength / (1 - strength) * sum(mean * np.log(mean * len(mean)))
    )


@pytest.mark.parametrize("strength", [0.3, 0.8, 0.95])
def test_balanced_classes_minimise_the_objective(strength: float) -> None:
    logits = 3 * np.random.default_rng(0).standard_normal((4, 3)) + [2, 0, -1]
    p = softmax(logits, axis=1)
    found = minimize(
        lambda free: objective(softmax(free.reshape(4, 3), axis=1), p, strength), logits.ravel(), tol=1e-12
    )
    np.testing.assert_allclose(balance_classes(logits, strength), softmax(found.x.reshape(4, 3), axis=1), atol=1e-4)


@given(**SIZES, strength=st.floats(0, 0.95))
@settings(max_examples=40, deadline=None)
def test_invariants_of_balance(rows: int, classes: int, seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    logits = 4 * rng.standard_normal((rows, classes)) + 3 * rng.standard_normal(classes)
    p, q = softmax(logits, axis=1), balance_classes(logits, strength)
    np.testing.assert_allclose(q.sum(1), 1)
    other = 0.9 * q + 0.1 * rng.dirichlet(np.ones(classes), rows)
    assert objective(q, p, strength) <= objective(other, p, strength) + 1e-9
    assert objective(q, p, strength) <= objective(p, p, strength) + 1e-9
    order, names = rng.permutation(rows), rng.permutation(classes)
    np.testing.assert_allclose(balance_classes(logits[order], strength), q[order], atol=1e-6)
    np.testing.assert_allclose(balance_classes(logits[:, names], strength), q[:, names], atol=1e-6)
    shifted = logits + rng.standard_normal((rows, 1))
    np.testing.assert_allclose(balance_classes(shifted, strength), q, atol=1e-6)


def test_strength_zero_is_softmax_and_one_is_exact_balance() -> None:
    logits = np.random.default_rng(1).standard_normal((50, 4)) + np.array([2, 0, 0, -2])
    np.testing.assert_allclose(balance_classes(logits, 0), softmax(logits, axis=1))
    np.testing.assert_allclose(balance_classes(logits, 1).mean(0), 0.25, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.8, 1.0])
def test_logits_without_bounds(strength: float) -> None:
    logits = np.array([[0.0, -np.inf, -1e9], [1e9, 0.0, -np.inf], [5.0, 5.0, -np.inf]])
    for x in (logits, logits[:1]):
        q = balance_classes(x, strength)
        assert np.isfinite(q).all()
        np.testing.assert_allclose(q.sum(1), 1)
