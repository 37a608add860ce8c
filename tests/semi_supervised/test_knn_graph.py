"""The sparse graph against a dense one made by loops."""

import subprocess
import sys

import numpy as np
import pytest
from dense_graph import build_dense_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.semi_supervised import knn_graph
from transfer.semi_supervised.knn_graph import build_neighbour_graph, find_neighbours


def draw(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 5))


@given(rows=st.integers(1, 25), k=st.integers(1, 7), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_same_as_dense(rows: int, k: int, seed: int) -> None:
    x = draw(rows, seed)
    np.testing.assert_allclose(build_neighbour_graph(x, k).toarray(), build_dense_graph(x, k), atol=1e-5)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_fewer_neighbours_are_the_nearest_of_many(k: int) -> None:
    x = draw(60, 0)
    np.testing.assert_allclose(find_neighbours(x, 10).build_graph(k).toarray(), build_dense_graph(x, k), atol=1e-5)


def test_the_graph_loads_no_scikit_learn() -> None:
    command = "import sys; from transfer.semi_supervised import knn_graph as g; import numpy as n"
    command += "; g.build_neighbour_graph(n.eye(4)); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_the_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draw(50, 0)
    whole = build_neighbour_graph(x).toarray()
    monkeypatch.setattr(knn_graph, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(build_neighbour_graph(x).toarray(), whole, atol=1e-6)


def test_edges_grow_with_rows_alone() -> None:
    assert 3000 * 5 <= build_neighbour_graph(draw(3000, 0), 5).nnz <= 2 * 3000 * 5
