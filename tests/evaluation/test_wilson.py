from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from transfer.evaluation.wilson import wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_the_interval_is_scipys(drawn, level):
    hits, n = drawn
    theirs = binomtest(hits, n).proportion_ci(level, method="wilson")
    width = NormalDist().inv_cdf((1 + level) / 2)
    assert wilson(hits / n, n, width) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_by_default_95_percent():
    theirs = binomtest(18, 20).proportion_ci(method="wilson")
    assert wilson(0.9, 20) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
