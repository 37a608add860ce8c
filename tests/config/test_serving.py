from pathlib import Path

import pytest

from transfer.config.serving import ServeConfig, ServeLimitsConfig
from transfer.errors import TransferError

RUN = (Path("a"),)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_addresses_of_this_machine_are_local(host):
    assert ServeConfig(RUN, host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "studio.example", "localhost.example", ""])
def test_other_addresses_are_not(host):
    assert not ServeConfig(RUN, host=host).is_local


def test_two_runs_are_compared_at_most():
    with pytest.raises(TransferError, match="2 at most"):
        ServeConfig(RUN * 3)


def test_a_batch_must_fit_into_the_queue():
    with pytest.raises(TransferError, match="no such batch fits"):
        ServeLimitsConfig(queue=10, max_images=11)
