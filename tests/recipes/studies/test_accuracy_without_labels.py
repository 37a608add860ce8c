from dataclasses import replace

import numpy as np
import pytest
from studies.accuracy_without_labels import METHODS, EvaluatedPair, evaluate_pairs, summarise

from transfer.evaluation.label_free.expected_accuracy import ExpectedAccuracy
from transfer.feature_cache import TrunkCache

EXPECTED = ExpectedAccuracy(0.8, 0.7, 0.9, 50, 0.95, 0.8, 0.8, 0.9, 1e-9)


def test_each_model_judges_its_own_test_images_and_the_other_domains(config, images):
    settings = config(test=0.5)
    found = list(evaluate_pairs(settings, TrunkCache(), [0, 1]))
    assert [(each.source, each.target) for each in found if not each.own] == [
        ("plain", "striped"),
        ("striped", "plain"),
    ] * 2
    own = [each for each in found if each.own]
    assert {each.target for each in own} == {"plain test", "striped test"}
    for each in found:
        assert 0 <= each.measured <= 1
        assert each.others.keys() == set(METHODS)
        assert each.error() == pytest.approx(100 * abs(each.expected.accuracy - each.measured))
    assert all(each.expected.n == 24 for each in found if not each.own)


def test_a_line_of_the_table():
    """Two pairs: one within the interval and with an alarm, one neither."""
    others = dict.fromkeys(METHODS, 0.8)
    inside = EvaluatedPair("a", "b", 0.85, EXPECTED, others)
    outside = EvaluatedPair("a", "b", 0.95, replace(EXPECTED, p_value=0.5), others)
    assert not inside.own
    assert EvaluatedPair("a", "a test", 0.85, EXPECTED, others).own
    assert summarise("a -> b", [inside, outside]) == ["a -> b", "0.900", "0.800", "10.0", "0.100", "50%", "50%", "2"]
    assert np.isclose(inside.error("ATC"), 5)
