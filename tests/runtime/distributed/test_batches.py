from hypothesis import given
from hypothesis import strategies as st

from transfer.runtime.distributed.batches import shard_bounds


@given(st.integers(0, 200), st.integers(1, 20))
def test_rows_are_shared_out_evenly_in_order_and_none_gets_fewer_of_more(count, size):
    parts = [shard_bounds(count, number, size) for number in range(size)]
    assert [row for start, end in parts for row in range(start, end)] == list(range(count))
    sizes = [end - start for start, end in parts]
    assert max(sizes) - min(sizes) <= 1
    more = [end - start for start, end in (shard_bounds(count + 1, number, size) for number in range(size))]
    assert all(a <= b for a, b in zip(sizes, more, strict=True))


def test_in_several(ran):
    assert ran["rows"]["codes"] == [0, 0, 0], ran["rows"]["err"]
