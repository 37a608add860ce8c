"""Centroids by loops over the paper's sums, and a domain whose clusters a source's boundary cuts."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from transfer.adaptation.refinement.centroids import TIE, class_centroids, refine_labels

SIZES = {"rows": st.integers(1, 25), "classes": st.integers(2, 6), "seed": st.integers(0, 999)}


def draw(rows: int, classes: int, seed: int, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)), rng.dirichlet(np.full(classes, 0.5), rows)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def nearest(z: np.ndarray, weights: np.ndarray) -> list[int]:
    """Return each row's class by loops: the least cosine distance to the weighted mean of rows (eq. 4 and 5)."""
    centres = {}
    for k in range(weights.shape[1]):
        mass = sum(weights[i, k] for i in range(len(z)))
        if mass > 0:
            centres[k] = sum(weights[i, k] * z[i] for i in range(len(z))) / mass
    for row in z:  # where centroids are nearer to each other than TIE, the probabilities decide
        cosines = sorted(cosine(row, centre) for centre in centres.values())
        assume(len(cosines) < 2 or cosines[-1] - cosines[-2] > TIE)
    return [min(centres, key=lambda k: 1 - cosine(row, centres[k])) for row in z]


@given(**SIZES, rounds=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_labels_are_those_of_equations_4_to_6(rows: int, classes: int, seed: int, rounds: int) -> None:
    x, q = draw(rows + 1, classes, seed)
    z = np.array([row / np.sqrt(row @ row) for row in x])
    labels = nearest(z, q)
    for _ in range(rounds):
        labels = nearest(z, np.array([[float(label == k) for k in range(classes)] for label in labels]))
    assert refine_labels(x, q, rounds=rounds).argmax(1).tolist() == labels


def test_probabilities_are_the_softmax_of_cosines() -> None:
    x, q = draw(12, 3, 0)
    centres = [sum(q[i, k] * x[i] / np.linalg.norm(x[i]) for i in range(12)) for k in range(3)]
    expected = np.array([[np.exp(4 * cosine(row, centre)) for centre in centres] for row in x])
    np.testing.assert_allclose(
        refine_labels(x, q, rounds=0, temperature=4), expected / expected.sum(1, keepdims=True), rtol=1e-4
    )


@given(**SIZES)
@settings(max_examples=40, deadline=None)
def test_invariants(rows: int, classes: int, seed: int) -> None:
    x, q = draw(rows, classes, seed)
    result = refine_labels(x, q)
    assert result.dtype == np.float64
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(1), 1)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(rows), rng.permutation(classes)
    np.testing.assert_allclose(refine_labels(x[order], q[order]), result[order], atol=1e-9)
    np.testing.assert_allclose(refine_labels(x, q[:, names]), result[:, names], atol=1e-9)
    np.testing.assert_allclose(refine_labels(7 * x, q), result, atol=1e-9)


def test_split_clusters_are_reunited() -> None:
    """The source's boundary, at 45°, cuts off a third of the first cluster of the target, which is at 40°."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    angle = np.radians(np.where(truth, 110, 40) + 8 * rng.standard_normal(200))
    sure = 1 / (1 + np.exp(-10 * (angle - np.pi / 4)))
    q = np.stack([1 - sure, sure], 1)
    assert (q.argmax(1) == truth).mean() < 0.9
    x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    assert (refine_labels(x, q).argmax(1) == truth).all()


def test_a_class_without_mass_gets_probability_zero() -> None:
    x, q = draw(10, 3, 1)
    q[:, 1] = 0
    for rounds in (0, 2):
        result = refine_labels(x, q / q.sum(1, keepdims=True), rounds=rounds)
        assert not result[:, 1].any()
        np.testing.assert_allclose(result.sum(1), 1)
    assert not class_centroids(x, q)[1].any()


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 3), np.float32)])
def test_uninformative_rows(x: np.ndarray) -> None:
    q = np.tile([0.6, 0.4], (len(x), 1))
    for rounds in (0, 1):
        result = refine_labels(x, q, rounds=rounds)
        np.testing.assert_allclose(result.sum(1), 1)
        assert not result.argmax(1).any()  # as before


def test_the_smallest_mass_still_makes_a_centroid() -> None:
    x = np.eye(2)
    q = np.array([[1.0, 1e-200], [1.0, 0.0]])
    np.testing.assert_allclose(class_centroids(x, q)[1], [1, 0])
