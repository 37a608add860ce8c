import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.advice.estimate import HALF, gained, mendable, posterior


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(-1, 1), st.floats(0.001, 1))
def test_the_posterior_is_that_of_two_normals(m0, s0, m1, s1):
    mean, sd = posterior(m0, s0, m1, s1)
    s0 = max(s0, abs(m1 - m0) - 4 * s1)  # a surprise
    precision = 1 / s0**2 + 1 / s1**2
    assert sd == pytest.approx(precision**-0.5, rel=1e-6)
    assert mean == pytest.approx((m0 / s0**2 + m1 / s1**2) / precision, rel=1e-6, abs=1e-9)


def test_gains_are_paired():
    rng = np.random.default_rng(0)
    right, before = rng.random(400) < 0.9, rng.random(400) < 0.8
    mean, sd = gained(right, before)
    each = right.astype(float) - before
    assert mean == pytest.approx(each.mean())
    assert sd == pytest.approx((each**2).mean() ** 0.5 / 20, rel=0.05)
    assert gained(right, right)[1] > 0


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_what_layers_can_mend_is_a_part_of_the_errors_and_grows_with_images(images, error):
    some = mendable(images, error)
    assert 0 <= some <= min(error, 4 / 27)  # the most of e (1 - e)^2
    assert some <= mendable(images + 1, error)
    assert some == pytest.approx(images / (images + 300) * (error - 2 * error**2 + error**3), abs=1e-12)


def test_half_of_it_with_so_many_images():
    assert mendable(HALF, 0.2) == pytest.approx(mendable(10**12, 0.2) / 2)
