import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.runtime.time_limit import TimeLimit


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """Stop the clock."""
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)


def test_no_limit_leaves_all_the_time_and_all_epochs():
    limit = TimeLimit.after(None)
    assert limit.left == limit.share(0.1).left == math.inf
    assert limit.count_epochs(30, 1e9) == 30


def test_what_is_left_is_never_negative():
    assert TimeLimit(999.0).left == 0
    assert TimeLimit(999.0).count_epochs(5, 1.0) == 0
    assert TimeLimit(999.0).share(0.5).left == 0


@given(minutes=st.floats(0.1, 100), planned=st.integers(0, 50), seconds=st.floats(0.01, 1000))
def test_as_many_epochs_as_fit(minutes, planned, seconds):
    found = TimeLimit.after(minutes).count_epochs(planned, seconds)
    naive = 0
    while naive < planned and (naive + 1) * seconds <= 60 * minutes + 1e-9:
        naive += 1
    assert abs(found - naive) <= (1 if math.isclose(60 * minutes % seconds, 0, abs_tol=1e-6) else 0) or found == naive


@given(parts=st.integers(1, 6))
def test_equal_shares_of_what_is_left_are_equal(parts):
    """Each run takes its whole share: all of them end at the same distance."""
    limit, now = TimeLimit(1000.0 + 60), 1000.0
    taken = []
    for number in range(parts):
        share = TimeLimit(now + (limit.end - now) / (parts - number))  # as `share` at that moment
        taken.append(share.end - now)
        now = share.end
    assert taken == pytest.approx([60 / parts] * parts)
    assert limit.share(1 / parts).left == pytest.approx(60 / parts)
