import itertools

import numpy as np
import pytest

from transfer.evaluation.label_free import transport
from transfer.evaluation.label_free.transport import estimate_by_transport, round_shares


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all_assignments_with_these_shares(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), 6)
    every = set(itertools.permutations([0, 0, 0, 1, 1, 2]))
    best = max(np.mean([p[row, k] for row, k in enumerate(labels)]) for labels in every)
    assert estimate_by_transport(p, np.array([3, 2, 1]) / 6) == pytest.approx(best)


def test_confidence_in_a_single_class_is_found_out():
    p = np.tile([0.99, 0.01], (20, 1))
    assert estimate_by_transport(p, np.array([0.5, 0.5])) == pytest.approx(0.5)
    assert estimate_by_transport(p, np.array([1.0, 0.0])) == pytest.approx(0.99)


def test_of_many_images_a_sample_is_moved(monkeypatch):
    monkeypatch.setattr(transport, "MAX_TRANSPORTED", 50)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 400)
    p = p[p.argmax(1).argsort()]
    shares = np.full(3, 1 / 3)
    assert estimate_by_transport(p, shares) == estimate_by_transport(p, shares)
    monkeypatch.setattr(transport, "MAX_TRANSPORTED", 400)
    whole = estimate_by_transport(p, shares)
    monkeypatch.setattr(transport, "MAX_TRANSPORTED", 50)
    assert estimate_by_transport(p, shares) == pytest.approx(whole, abs=0.1)


@pytest.mark.parametrize("total", [1, 7, 10, 1000])
def test_rounded_shares_sum_to_the_total_and_none_is_off_by_one(total):
    shares = np.random.default_rng(total).dirichlet(np.ones(11))
    counts = round_shares(shares, total)
    assert counts.sum() == total
    assert (np.abs(counts - shares * total) < 1).all()
