import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.config.ranges import ABOVE_ZERO, BELOW_ONE, check_range
from transfer.errors import TransferError


@given(st.floats(allow_nan=True), st.sampled_from([0.0, 1.0, ABOVE_ZERO]), st.sampled_from([1.0, BELOW_ONE, math.inf]))
def test_what_is_within_passes_and_nothing_else(value: float, least: float, most: float) -> None:
    fine = math.isfinite(value) and least <= value <= most
    try:
        check_range(SimpleNamespace(rate=value), least, most, "rate")
    except TransferError:
        assert not fine
    else:
        assert fine


def test_every_item_of_a_tuple_is_looked_at_and_none_is_not() -> None:
    check_range(SimpleNamespace(hidden=(), shots=None), 1, math.inf, "hidden", "shots")
    with pytest.raises(TransferError, match=r"^--hidden 0: it must be 1 or more$"):
        check_range(SimpleNamespace(hidden=(4, 0)), 1, math.inf, "hidden")
