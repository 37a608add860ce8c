import pytest

from transfer.advice.candidate import Candidate


@pytest.mark.parametrize(("accuracy", "sd", "expected"), [(0.9, 0.01, (0.8804, 0.9196)), (0.99, 0.1, (0.794, 1.0))])
def test_the_middle_95_percent_stay_within_what_can_be(accuracy, sd, expected):
    assert Candidate("full", accuracy, sd, False, 10, 2, 6, 1.0).interval == pytest.approx(expected, abs=1e-4)
