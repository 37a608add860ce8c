import math

from hypothesis import given
from hypothesis import strategies as st

from transfer.config.ranges import ABOVE_ZERO, BELOW_ONE, Within


@given(st.floats(allow_nan=True), st.sampled_from([0.0, 1.0, ABOVE_ZERO]), st.sampled_from([1.0, BELOW_ONE, math.inf]))
def test_finite_numbers_between_the_ends_are_within_and_no_others(value: float, least: float, most: float) -> None:
    assert (value in Within(least, most)) == (math.isfinite(value) and least <= value <= most)


def test_a_range_says_what_is_in_it() -> None:
    ranges = [Within(0), Within(ABOVE_ZERO), Within(1, 6), Within(0, BELOW_ONE), Within(ABOVE_ZERO, BELOW_ONE)]
    says = ["0 or more", "above 0", "from 1 to 6", "from 0 to below 1", "above 0 and below 1"]
    assert list(map(str, ranges)) == says
