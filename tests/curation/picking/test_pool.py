import numpy as np
import pytest

from transfer.curation.picking.pool import Pool, scale_to_unit_length
from transfer.errors import TransferError


def test_margins_are_the_lead_of_the_likeliest_class():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    pool = Pool(np.zeros((2, 1)), np.ones(2, bool), np.zeros(2, bool), p, ("a", "b", "c"))
    np.testing.assert_allclose(pool.margins, [0.2, 0.7])
    assert pool.name_likeliest(0) == ("a", "b")
    assert Pool(np.zeros((2, 1)), np.ones(2, bool), np.zeros(2, bool)).margins.tolist() == [0, 0]


def test_rows_are_taken_of_all_parts(make_pool):
    pool = make_pool(labelled=5)
    part = pool.take(np.array([7, 2]))
    np.testing.assert_array_equal(part.features, pool.features[[7, 2]])
    np.testing.assert_array_equal(part.probabilities, pool.probabilities[[7, 2]])
    assert part.candidates.tolist() == [True, False]
    assert part.covered.tolist() == [False, True]


def test_rows_have_length_one_unless_they_are_the_centre():
    z = scale_to_unit_length(np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0], [2.0, 8.0], [2.0, 2.0]]))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), [1, 1, 0, 1, 1], atol=1e-6)
    with pytest.raises(TransferError, match="NaN"):
        scale_to_unit_length(np.array([[np.nan], [1.0]]))
