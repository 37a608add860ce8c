import dataclasses

import pytest

from transfer.advice.requirements import Asked


def test_by_default_nothing_is_asked_for_but_images():
    asked = Asked(200)
    assert (asked.solved, asked.learns, asked.networks, asked.fresh) == (True, (), 1, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        asked.looks = 3
