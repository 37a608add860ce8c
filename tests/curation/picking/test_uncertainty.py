import numpy as np

from transfer.curation.picking.uncertainty import (
    choose_highest_entropies,
    choose_randomly,
    choose_smallest_margins,
)


def test_margins_and_entropies_order_the_candidates(make_pool):
    pool = make_pool(labelled=10)
    two = np.sort(pool.probabilities, 1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    entropy = -(pool.probabilities * np.log(pool.probabilities)).sum(1)
    open_rows = range(10, len(pool))
    found = choose_smallest_margins(pool, 9)
    assert [each.row for each in found] == sorted(open_rows, key=lambda row: margin[row])[:9]
    np.testing.assert_allclose([each.score for each in found], [1 - margin[each.row] for each in found])
    assert [each.row for each in choose_highest_entropies(pool, 9)] == sorted(open_rows, key=lambda r: -entropy[r])[:9]


def test_a_random_sample_depends_on_the_seed_alone(make_pool):
    samples = [[each.row for each in choose_randomly(make_pool(seed=seed), 10)] for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert samples[0] != sorted(samples[0])
