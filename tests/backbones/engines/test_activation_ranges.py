import json
import math

import pytest

from transfer.backbones.engines.activation_ranges import ActivationRanges
from transfer.config.checked import from_dict
from transfer.errors import TransferError

RANGES = ActivationRanges({"x": (-1.0, 2.5), "y": (0.0, 6.0)}, 3)


def test_json_keeps_them_and_their_digest():
    read = from_dict(ActivationRanges, json.loads(json.dumps(RANGES.to_dict())))
    assert (read, read.digest) == (RANGES, RANGES.digest)


def test_the_digest_is_of_the_ranges_whatever_their_order():
    assert ActivationRanges(dict(reversed(RANGES.ranges.items())), 3).digest == RANGES.digest
    assert ActivationRanges(RANGES.ranges | {"y": (0.0, 6.5)}, 3).digest != RANGES.digest


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (math.nan, 1.0), (0.0, math.inf)])
def test_what_is_no_range_is_refused(low, high):
    with pytest.raises(TransferError, match="the range of x cannot be from"):
        ActivationRanges({"x": (low, high)}, 1)


def test_a_damaged_record_is_refused():
    with pytest.raises(TransferError):
        from_dict(ActivationRanges, RANGES.to_dict() | {"ranges": {"x": [1]}})
