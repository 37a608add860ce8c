from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from transfer.curation.picking import herding
from transfer.curation.picking.herding import (
    choose_by_graph_herding,
    choose_by_max_herding,
    choose_by_uncertainty_herding,
    make_gaussian_similarity,
    make_graph_similarity,
)
from transfer.semi_supervised.knn_graph import build_neighbour_graph


def test_the_gaussian_kernel_is_that_of_distances(make_pool):
    z = make_pool().features
    distance = np.linalg.norm(z[:5, None] - z[None], axis=2)
    expected = np.exp(-(distance**2) / 2 / herding.BANDWIDTH**2)
    np.testing.assert_allclose(make_gaussian_similarity(z)(np.arange(5)), expected, rtol=1e-4)


def test_the_graph_kernel_is_the_cosine_of_label_propagation(make_pool):
    z = make_pool().features
    graph = build_neighbour_graph(z, herding.NEIGHBOURS_OF_GRAPH).toarray()
    spread = np.linalg.inv(np.eye(len(z)) - herding.ALPHA * graph)
    expected = spread / np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
    np.testing.assert_allclose(make_graph_similarity(z)(np.arange(len(z))), expected, rtol=1e-3, atol=1e-4)


def test_a_row_without_neighbours_is_similar_to_itself_alone(monkeypatch):
    monkeypatch.setattr(herding, "build_neighbour_graph", lambda z, k: csr_array((len(z), len(z))))
    np.testing.assert_array_equal(make_graph_similarity(np.eye(3, dtype=np.float32))(np.arange(3)), np.eye(3))


@pytest.mark.parametrize("choose", [choose_by_graph_herding, choose_by_max_herding, choose_by_uncertainty_herding])
def test_each_cluster_has_an_image_before_one_has_two(make_pool, choose):
    pool = make_pool(n=90, spread=0.05)
    nearest = pool.features @ pool.features.T > 0.5  # rows of one cluster
    chosen = [each.row for each in choose(pool, 6)]
    assert nearest[chosen].any(0).all()


@pytest.mark.parametrize("choose", [choose_by_graph_herding, choose_by_uncertainty_herding])
def test_uncertain_images_count_more(make_pool, choose):
    """Where one of two equal clusters is certain, the other one has the first choice, whichever it is."""
    pool = make_pool(n=90, spread=0.05)
    near = pool.features[0] @ pool.features.T > 0.5
    for certain in (near, ~near):
        p = np.where(certain[:, None], [[0.99, 0.01, 0.0]], [[0.4, 0.4, 0.2]])
        first = choose(replace(pool, probabilities=p), 1)[0]
        assert not certain[first.row]
        assert "a or b" in first.reason or "b or a" in first.reason
