import numpy as np
import pytest

from transfer.curation.picking import coverage
from transfer.curation.picking.coverage import choose_by_coverage


def choose_naively(kernel, candidates, covered, weights, n):
    """MaxHerding as in the paper: compare the whole coverage with each candidate added."""
    chosen, left = [], list(np.flatnonzero(candidates))
    for _ in range(n):
        present = [*np.flatnonzero(covered), *chosen]
        now = kernel[present].max(0) if present else np.zeros(len(kernel))
        gains = [float((np.maximum(now, kernel[row]) - now) @ weights) / len(kernel) for row in left]
        best = int(np.argmax(gains))
        chosen.append(left.pop(best))
    return chosen


@pytest.mark.parametrize("labelled", [0, 7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [4, 512])
def test_lazy_gains_choose_what_the_whole_coverage_would(make_pool, monkeypatch, labelled, weighted, block):
    monkeypatch.setattr(coverage, "COVERED_AT_ONCE", block)
    pool = make_pool(labelled=labelled)
    kernel = np.exp(pool.features @ pool.features.T - 1).astype(np.float32)
    weights = np.random.default_rng(1).random(len(pool)) if weighted else np.ones(len(pool))
    found = choose_by_coverage(pool, 12, lambda rows: kernel[rows], weights if weighted else None)
    assert [row for row, _ in found] == choose_naively(kernel, pool.candidates, pool.covered, weights, 12)
    gains = [gain for _, gain in found]
    assert gains == sorted(gains, reverse=True)


def test_gains_add_up_to_the_mean_coverage(make_pool):
    pool = make_pool()
    kernel = np.exp(pool.features @ pool.features.T - 1).astype(np.float32)
    found = choose_by_coverage(pool, len(pool), lambda rows: kernel[rows])
    assert sum(gain for _, gain in found) == pytest.approx(1.0, abs=1e-5)
