"""Spreading over the graph against a dense one and against the closed solution, and two moons."""

import numpy as np
import pytest
from dense_graph import build_dense_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_moons

from transfer.adaptation.refinement import centroids, label_propagation, product_of_experts, self_training
from transfer.adaptation.refinement.label_propagation import clamp_known, propagate_labels, smooth_over_graph
from transfer.semi_supervised.knn_graph import build_neighbour_graph

SIZES = {"rows": st.integers(1, 25), "classes": st.integers(2, 6), "k": st.integers(1, 7), "seed": st.integers(0, 999)}


def draw(rows: int, classes: int, seed: int, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, width)), rng.dirichlet(np.full(classes, 0.5), rows)


@given(**SIZES)
@settings(max_examples=60, deadline=None)
def test_rounds_on_a_dense_graph_are_the_same(rows: int, classes: int, k: int, seed: int) -> None:
    x, q = draw(rows, classes, seed)
    s = build_dense_graph(x, k)
    now = q
    for _ in range(6):
        now = 0.7 * s @ now + 0.3 * q
    np.testing.assert_allclose(
        propagate_labels(x, q, alpha=0.7, k=k, rounds=6), now / now.sum(1, keepdims=True), atol=1e-4
    )


def test_many_rounds_end_at_the_closed_solution() -> None:
    x, q = draw(30, 3, 1)
    expected = np.linalg.inv(np.eye(30) - 0.9 * build_dense_graph(x, 5)) @ q  # the limit that Zhou et al. 2004 derive
    result = propagate_labels(x, q, alpha=0.9, rounds=400)
    np.testing.assert_allclose(result, expected / expected.sum(1, keepdims=True), atol=1e-4)


@given(**SIZES)
@settings(max_examples=40, deadline=None)
def test_invariants(rows: int, classes: int, k: int, seed: int) -> None:
    x, q = draw(rows, classes, seed)
    result = propagate_labels(x, q, k=k)
    assert result.dtype == np.float64
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(1), 1)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(rows), rng.permutation(classes)
    np.testing.assert_allclose(propagate_labels(x[order], q[order], k=k), result[order], atol=1e-4)
    np.testing.assert_allclose(propagate_labels(x, q[:, names], k=k), result[:, names], atol=1e-9)
    np.testing.assert_allclose(propagate_labels(4 * x, q, k=k), result, atol=1e-6)  # 4: no rounding
    np.testing.assert_allclose(smooth_over_graph(build_neighbour_graph(x, k), q, alpha=0), q)


def test_one_label_per_moon_reaches_all_of_it() -> None:
    x, truth = make_moons(300, noise=0.04, random_state=0)
    x = np.c_[x, np.full(300, 3.0)]  # onto a cap of the sphere, where cosines tell near from far
    seeds = [int(np.flatnonzero(truth == k)[0]) for k in (0, 1)]
    q = np.full((300, 2), 0.5)
    q[seeds] = np.eye(2)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert ((z @ z[seeds].T).argmax(1) == truth).mean() < 0.9
    assert (propagate_labels(x, q, alpha=0.99, rounds=500).argmax(1) == truth).mean() == 1


@pytest.mark.parametrize("x", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 3), np.float32), np.eye(3)])
def test_rows_without_neighbours_or_all_the_same(x: np.ndarray) -> None:
    q = np.tile([0.6, 0.4], (len(x), 1))
    np.testing.assert_allclose(propagate_labels(x, q), q)


CLASSES = 3


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows in three tight clusters, and their classes."""
    rng = np.random.default_rng(seed)
    classes = np.arange(60) % CLASSES
    return 3 * np.eye(CLASSES, 6)[classes] + 0.1 * rng.standard_normal((60, 6)), classes


def turned(classes: np.ndarray) -> np.ndarray:
    """What a classifier says that takes every class for the next one, somewhat sure."""
    return 0.4 * np.eye(CLASSES)[(classes + 1) % CLASSES] + 0.2


def refinements():
    def grown(x, q, known):
        empty = np.random.default_rng(1).standard_normal((CLASSES, x.shape[1])) * 1e-3
        return self_training.grow_pseudo_labels(empty, np.arange(CLASSES), x, q, known=known)

    return {
        "centroids": lambda x, q, known: centroids.refine_labels(x, q, known=known, rounds=3),
        "propagation": lambda x, q, known: label_propagation.propagate_labels(
            x, q, known=known, alpha=0.99, rounds=300
        ),
        "experts": lambda x, q, known: product_of_experts.combine_experts(x, [(0.25, np.log(q))], known=known),
        "growing": grown,
    }


def test_clamped_by_a_loop():
    q = np.random.default_rng(0).dirichlet(np.ones(4), 9)
    known = np.array([-1, 0, 3, -1, -1, 2, 2, -1, 1])
    for row, (was, now) in enumerate(zip(q, clamp_known(q, known), strict=True)):
        assert now.tolist() == (was.tolist() if known[row] < 0 else [float(k == known[row]) for k in range(4)])
    assert np.array_equal(clamp_known(q, None), q)


@pytest.mark.parametrize("name", refinements())
def test_known_rows_have_their_class_and_no_known_rows_change_nothing(name):
    refine, (x, classes) = refinements()[name], clusters()
    q = turned(classes)
    known = np.where(np.arange(60) < 5, classes, -1)
    held = refine(x, q, known)
    assert (held.argmax(1)[:5] == classes[:5]).all()
    assert held[:5].max(1).min() > 0.9
    np.testing.assert_allclose(held.sum(1), 1)
    assert np.array_equal(refine(x, q, np.full(60, -1)), refine(x, q, None))


@pytest.mark.parametrize("name", ["propagation", "growing"])
def test_few_labels_correct_a_misclassified_cluster(name):
    refine, (x, classes) = refinements()[name], clusters()
    known = np.where(np.arange(60) < 30, classes, -1)
    assert (refine(x, turned(classes), None).argmax(1) == classes).mean() < 0.1
    assert (refine(x, turned(classes), known).argmax(1) == classes)[30:].mean() > 0.9
