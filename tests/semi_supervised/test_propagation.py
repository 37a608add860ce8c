"""The solver against the closed form of Zhou et al. 2004 on dense graphs, and its invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_graph import build_dense_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.datasets import make_moons

from transfer.semi_supervised import propagation
from transfer.semi_supervised.information import project_features, refine_probabilities
from transfer.semi_supervised.knn_graph import build_neighbour_graph, find_neighbours
from transfer.semi_supervised.propagation import (
    PropagationSettings,
    compute_certainty,
    make_seeds,
    normalise_scores,
    solve_propagation,
    spread_labels,
)

SIZES = {"rows": st.integers(2, 25), "classes": st.integers(2, 6), "k": st.integers(1, 7), "seed": st.integers(0, 999)}


def draw(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features, and one-hot labels of some rows; all others are zero."""
    rng = np.random.default_rng(seed)
    seeds = np.eye(classes)[rng.integers(classes, size=rows)] * (rng.random(rows) < 0.4)[:, None]
    return rng.standard_normal((rows, 5)), seeds


@given(**SIZES, alpha=st.sampled_from([0.0, 0.5, 0.8, 0.99]))
@settings(max_examples=60, deadline=None)
def test_same_as_the_closed_form(rows: int, classes: int, k: int, seed: int, alpha: float) -> None:
    x, seeds = draw(rows, classes, seed)
    s = build_dense_graph(x, k)
    expected = np.linalg.inv(np.eye(rows) - alpha * s) @ seeds
    np.testing.assert_allclose(solve_propagation(csr_array(s), seeds, alpha), expected, atol=1e-6)


class Counted:
    """A graph that counts its products."""

    def __init__(self, graph: csr_array) -> None:
        self.graph, self.products = graph, 0

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        self.products += 1
        return self.graph @ other


@given(**SIZES)
@settings(max_examples=40, deadline=None)
def test_a_graph_of_n_rows_takes_about_n_steps(rows: int, classes: int, k: int, seed: int) -> None:
    """As conjugate gradients do, but for rounding; without labels it takes none."""
    x, seeds = draw(rows, classes, seed)
    graph = Counted(build_neighbour_graph(x, k))
    solve_propagation(graph, seeds, 0.8)
    assert graph.products <= rows + 5
    assert seeds.any() or graph.products == 0


@given(**SIZES)
@settings(max_examples=40, deadline=None)
def test_invariants(rows: int, classes: int, k: int, seed: int) -> None:
    x, seeds = draw(rows, classes, seed)
    graph = build_neighbour_graph(x, k)
    scores = solve_propagation(graph, seeds, 0.8)
    assert (scores > -1e-7).all()
    np.testing.assert_array_equal(solve_propagation(graph, seeds, 0.0), seeds)
    np.testing.assert_allclose(solve_propagation(graph, 3 * seeds, 0.8), 3 * scores, atol=1e-6)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(rows), rng.permutation(classes)
    np.testing.assert_allclose(solve_propagation(graph, seeds[:, names], 0.8), scores[:, names], atol=1e-6)
    turned = csr_array(graph.toarray()[np.ix_(order, order)])
    np.testing.assert_allclose(solve_propagation(turned, seeds[order], 0.8), scores[order], atol=1e-6)
    np.testing.assert_allclose(normalise_scores(scores).sum(1), 1)


def test_a_row_that_no_label_reaches_is_uniform_and_counts_nothing() -> None:
    graph = csr_array(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    scores = solve_propagation(graph, np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), 0.5)
    assert not scores[:, 1].any()  # exactly: a class without a label has no score
    p = normalise_scores(scores)
    np.testing.assert_allclose(p, [[1, 0], [1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(compute_certainty(p), [1, 1, 0])


def test_a_quotient_by_nothing_is_zero() -> None:
    used = np.full(1000, np.nan)
    del used  # memory that a result without a value would take
    denominator = np.arange(1000.0) % 3 - 1
    assert propagation._divide(np.ones(1000), denominator).tolist() == [float(each > 0) for each in denominator]


def test_certainty_by_a_loop() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), 9)
    expected = [1 + sum(float(q * np.log(q)) for q in row) / np.log(4) for row in p]
    np.testing.assert_allclose(compute_certainty(p), expected)
    assert compute_certainty(np.array([[np.nextafter(1, 2), 0.0]])).tolist() == [1.0]  # rounding may leave that


def test_one_label_per_moon_reaches_all_of_it() -> None:
    x, truth = make_moons(300, noise=0.04, random_state=0)
    x = np.c_[x, np.full(300, 3.0)]  # onto a cap of the sphere, where cosines tell near from far
    seeds = np.zeros((300, 2))
    for moon in (0, 1):
        seeds[np.flatnonzero(truth == moon)[0], moon] = 1
    assert (solve_propagation(build_neighbour_graph(x), seeds, 0.99).argmax(1) == truth).mean() == 1


@pytest.mark.parametrize("alpha", [-0.1, 1.0, float("nan")])
def test_weights_without_a_limit_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha is"):
        solve_propagation(csr_array((2, 2)), np.zeros((2, 2)), alpha)


def test_seeds_by_a_loop() -> None:
    predicted = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    seeds = make_seeds(PropagationSettings(5, 0.8, 0.3), predicted, np.array([2, -1, 0, -1, -1]))
    expected = [[0, 0, 1], 0.3 * predicted[1], [1, 0, 0], 0.3 * predicted[3], 0.3 * predicted[4]]
    np.testing.assert_allclose(seeds, expected)


def test_labels_spread_as_the_dense_system_says_and_are_refined_on_request() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((40, 6)), np.where(np.arange(40) < 6, np.arange(40) % 3, -1)
    predicted, z = rng.dirichlet(np.ones(3), 40), project_features(torch.from_numpy(x), 3)
    plain = PropagationSettings(5, 0.8, 0.3)
    found = spread_labels(plain, find_neighbours(x, 5), predicted, labels, z)
    seeds = np.where((labels >= 0)[:, None], np.eye(3)[labels], 0.3 * predicted)
    scores = np.linalg.solve(np.eye(40) - 0.8 * build_neighbour_graph(x).toarray(), seeds)
    np.testing.assert_allclose(found, scores / scores.sum(1, keepdims=True), atol=1e-6)
    refined = spread_labels(replace(plain, refined=True), find_neighbours(x, 5), predicted, labels, z)
    np.testing.assert_allclose(refined, refine_probabilities(z, found, labels))
