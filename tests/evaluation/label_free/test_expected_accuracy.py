import json
from dataclasses import replace

import numpy as np
import pytest

from transfer.evaluation.label_free.expected_accuracy import (
    AGREED_ERRORS,
    INTERVAL_FACTOR,
    MIN_IMAGES,
    AccuracyReference,
    average_expected,
    combine_estimates,
    compute_half_width,
    estimate_by_confidence,
)
from transfer.evaluation.label_free.second_opinion import SecondOpinion


def draw(rng, n, shift=0.0, noise=0.9):
    """Features of three classes, `shift` away along a direction that the head depends on, and their labels."""
    labels = np.arange(n) % 3
    features = 3 * np.eye(3)[labels] + noise * rng.normal(size=(n, 3))
    return features + shift * np.array([1.0, 0, 0]), labels


def predict(features):
    e = np.exp(3 * features)
    return e / e.sum(1, keepdims=True)


@pytest.fixture
def reference():
    """A head whose weights are the identity, and second opinions that are mostly right about standardised features."""
    features, labels = draw(np.random.default_rng(0), 300)
    eye = np.eye(3, dtype=np.float32)
    opinion = SecondOpinion(eye, eye[0] * 0, eye + 0.1 * np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32))
    return AccuracyReference(predict(features).astype(np.float16), labels, opinion)


def test_without_a_shift_the_accuracy_is_expected_and_no_alarm_is_raised(reference):
    features, labels = draw(np.random.default_rng(1), 300)
    found = reference.expect(predict(features), features)
    truth = (features.argmax(1) == labels).mean()
    assert found.accuracy == pytest.approx(truth, abs=0.05)
    assert found.low < truth < found.high
    assert found.held_out == pytest.approx(reference.accuracy)
    assert not found.alarm


def test_a_shift_lowers_it_and_raises_the_alarm_although_the_head_is_confident(reference):
    features, labels = draw(np.random.default_rng(1), 300, shift=4.0)
    found = reference.expect(predict(features), features)
    truth = (features.argmax(1) == labels).mean()
    assert truth < 0.6
    assert predict(features).max(1).mean() > 0.85
    assert found.accuracy == pytest.approx(truth, abs=0.1)
    assert found.low < truth < found.high
    assert found.alarm


def test_an_alarm_takes_other_outputs_and_a_lower_accuracy(reference):
    features, _ = draw(np.random.default_rng(1), 300, shift=4.0)
    found = reference.expect(predict(features), features)
    assert not replace(found, p_value=0.02).alarm
    assert not replace(found, high=found.held_out).alarm
    assert replace(found, high=found.held_out - 0.01).alarm


def test_the_record_is_json(reference):
    features, _ = draw(np.random.default_rng(1), 30)
    record = json.loads(json.dumps(reference.expect(predict(features), features).record()))
    assert record["n"] == 30
    assert record["interval"][0] <= record["accuracy"] <= record["interval"][1]
    assert record["alarm"] is False
    assert record["evidence"].keys() == {"agreement", "transport", "confidence", "outputs_p_value"}


def test_confidence_counts_only_where_the_outputs_do_not_differ(reference):
    for shift, differs in ((0.0, False), (4.0, True)):
        features, _ = draw(np.random.default_rng(1), 300, shift)
        found = reference.expect(predict(features), features)
        assert found.differs == differs
        means = (found.agreement + found.confidence) / 2, combine_estimates(found.agreement, found.transport)
        assert found.accuracy == pytest.approx(means[differs])
        assert found.record()["method"].endswith(("confidence", "transport")[differs])


def test_an_ensemble_counts_by_its_own_predictions_and_averages_what_its_members_say(reference):
    features, _ = draw(np.random.default_rng(1), 300, shift=4.0)
    own, together = predict(features), predict(draw(np.random.default_rng(1), 300)[0])
    alone, found = reference.expect(own, features), reference.expect(own, features, together)
    agreement = reference.opinion.measure_agreement(features, together.argmax(1))
    assert found.agreement == agreement > alone.agreement
    assert (found.p_value, found.confidence) == (alone.p_value, alone.confidence)
    assert reference.expect(own, features, own) == alone
    mean = average_expected([alone, found, found])
    assert mean.accuracy == pytest.approx((alone.accuracy + 2 * found.accuracy) / 3)
    assert mean.high == pytest.approx((alone.high + 2 * found.high) / 3)
    assert (mean.n, mean.p_value) == (300, alone.p_value)


def test_the_threshold_of_confidence_separates_as_many_as_are_wrong():
    known = np.random.default_rng(0).permutation(np.arange(100) / 100)
    assert estimate_by_confidence(known, 0.8, known) == pytest.approx(0.8)
    assert estimate_by_confidence(known, 0.8, known / 2) == pytest.approx(0.6)
    assert estimate_by_confidence(known, 1.0, known) == 1


def test_too_few_images_and_numbers_that_are_not_finite_have_none(reference):
    features, _ = draw(np.random.default_rng(1), MIN_IMAGES)
    assert reference.expect(predict(features), features)
    assert reference.expect(predict(features)[1:], features[1:]) is None
    features[3] = np.nan
    assert reference.expect(predict(features), features) is None


def test_the_agreement_weighs_as_much_as_it_is_and_transport_only_lowers_it():
    for agreement, transport in ((0.2, 0.4), (0.3, 0.5), (0.6, 0.7)):
        assert combine_estimates(agreement, transport) == agreement
    for agreement, transport in ((0.3, 0.1), (0.9, 0.2), (1.0, 0.0)):
        mixed = agreement * agreement + (1 - agreement) * transport
        assert combine_estimates(agreement, transport) == pytest.approx((mixed - AGREED_ERRORS) / (1 - AGREED_ERRORS))
    assert combine_estimates(0.0, 0.0) == 0


def test_intervals_narrow_with_images_and_agreement_down_to_the_error_of_the_estimate():
    widths = [compute_half_width(0.7, n, 0.0) for n in (10, 100, 10_000, 10**9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(INTERVAL_FACTOR * 0.7 * 0.3, abs=1e-3)
    assert compute_half_width(1.0, 10**9, 0.0) > 0
    assert compute_half_width(0.7, 10**9, -0.4) == pytest.approx(np.hypot(widths[-1], 0.4), abs=1e-4)
