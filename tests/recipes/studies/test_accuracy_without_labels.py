from dataclasses import replace

import numpy as np
import pytest
from studies.accuracy_without_labels import METHODS, EvaluatedPair, Outputs, evaluate_pair, evaluate_pairs, summarise

from transfer.evaluation.label_free.expected_accuracy import AccuracyReference, ExpectedAccuracy, average_expected
from transfer.evaluation.label_free.second_opinion import SecondOpinion
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


def test_an_ensemble_is_judged_by_what_its_members_say_of_the_predictions_of_all():
    """Of two members, of which one is wrong about a row: measured is what the mean says, expected the members' mean."""
    random = np.random.default_rng(0)
    truth = np.arange(30) % 3
    true = np.eye(3, dtype=bool)[truth]
    features = random.standard_normal((30, 5)) + 3 * np.eye(3, 5)[truth]
    sure, unsure = 0.8 * true + 0.0667 * ~true, np.roll(0.5 * true + 0.25 * ~true, 1, axis=1)
    references = [
        AccuracyReference(each.astype(np.float16), truth, SecondOpinion(np.eye(3, 5), np.zeros(3), np.eye(3, 5)))
        for each in (sure, unsure)
    ]
    outputs = [Outputs(each, features, true) for each in (sure, unsure)]
    pair = evaluate_pair(references, "a", "b", outputs)
    together = (sure + unsure) / 2
    members = [
        reference.expect(each.probabilities, features, together)
        for reference, each in zip(references, outputs, strict=True)
    ]
    assert pair.expected == average_expected([each for each in members if each])
    assert pair.measured == (together.argmax(1) == truth).mean() == 1
    assert evaluate_pair(references[1:], "a", "b", outputs[1:]).measured == 0
    assert outputs[0].take(np.arange(4)).true.shape == (4, 3)
