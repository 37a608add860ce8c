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
    sample_pool,
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


def test_of_many_rows_a_sample_takes_part_and_choices_are_rows_of_the_pool(make_pool, monkeypatch):
    monkeypatch.setattr(herding, "MAX_GRAPH_ROWS", 40)
    pool = make_pool(200, labelled=60)
    rows = sample_pool(pool, 40)
    assert len(set(rows.tolist())) == 40
    assert pool.covered[rows].sum() == pool.candidates[rows].sum() == 20
    found = [choice.row for choice in choose_by_graph_herding(pool, 10)]
    assert len(set(found)) == 10
    assert set(found) <= set(rows[pool.candidates[rows]].tolist())
    assert found == [choice.row for choice in choose_by_graph_herding(pool, 10)]
    every = sorted(choice.row for choice in choose_by_graph_herding(pool, 140))  # more than half of a sample
    assert every == np.flatnonzero(pool.candidates).tolist()


def test_near_duplicates_of_candidates_are_not_in_a_sample_and_few_rows_are_no_sample(make_pool):
    pool = make_pool(50)
    candidates = np.arange(50) % 2 == 0
    assert np.array_equal(sample_pool(pool, 50), np.arange(50))
    assert set(sample_pool(replace(pool, candidates=candidates), 30).tolist()) == set(np.flatnonzero(candidates))
