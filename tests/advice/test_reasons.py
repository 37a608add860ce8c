import re
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.advice import rule
from transfer.advice.costs import TrainingCosts
from transfer.advice.requirements import NetworkLayout, RunRequirements, compute_required_lead
from transfer.advice.similarity import Similarity
from transfer.advice.transferability.noise import LabelNoise
from transfer.backbones.weight_paths import BUNDLE_PRETRAINING

COSTS = TrainingCosts(0.01, (0.001, 0.002, 0.003, 0.01, 0.02))
NETWORK = NetworkLayout((10, 20, 30, 40, 50), (1, 4, 4, 6, 5))


def explain(evidence, **settings):
    return " ".join(rule.derive_advice(evidence, COSTS, NETWORK, RunRequirements(200, **settings)).reasons)


def test_problems_of_the_labels_are_reported(evidence):
    plain = explain(evidence())
    for word in ("duplicates", "balance", "labels look wrong", "fewer than 5", "sample", "significantly", "solved"):
        assert word not in plain
    noise = LabelNoise(10, 0.1, np.array([1]), np.array([0]))
    facts = {"copies": 3, "imbalance": 9.0, "small_classes": ("a",)}
    more = explain(evidence(size=facts, noise=noise))
    for word in (
        "duplicates: 3",
        "balance loss",
        "10 of 100 labels look wrong or ambiguous to this network's probes ",
        "classes with fewer than 5 images: 1",
    ):
        assert word in more


def test_a_count_of_wrong_labels_says_whether_any_is_listed(evidence):
    nobody = LabelNoise(10, 0.1, np.empty(0, np.int64), np.empty(0, np.int64))
    assert "probes, none of them clearly enough to name it" in explain(evidence(noise=nobody))
    assert "to name it" not in explain(evidence(noise=LabelNoise(10, 0.1, np.array([1]), np.array([0]))))


def test_long_durations_are_in_minutes(evidence):
    assert re.search(r"in \d+ s", explain(evidence(20, 10)))
    assert re.search(r"in \d+ min", explain(evidence(9864, 329, "different")))


def test_balance_is_not_suggested_twice(evidence):
    measured_set = evidence(size={"imbalance": 9.0})
    assert "consider --balance loss" in explain(measured_set)
    assert "--balance" not in explain(measured_set, balanced=True)


def test_images_are_counted(evidence):
    measured_set = explain(evidence(), images=225, test_images=25)
    assert "small: 100 labelled training images of 2 classes, 10 in the median class" in measured_set
    assert "25 of 225 images are reserved for testing" in measured_set
    part = explain(evidence(10000, 500, slope=0.5))  # two doublings, with powers of 1/4 and 1/8
    assert "cross-validated on a sample of 2500 images" in part
    assert "a probe of all 10000 makes 77% of the errors" in part


def test_unknown_similarity_is_not_claimed(evidence):
    unknown = explain(evidence(similarity=Similarity(0.5, "between", {}, None)))
    assert "similarity to the pretraining data is unknown" in unknown
    assert "neither similar" not in unknown
    measured_set = evidence(similarity=Similarity(0.9, "between", {}, 0.4, outdone="stem"))
    outdone = explain(replace(measured_set, neighbours={"stem": 0.6, "top": 0.5}))
    assert "features of stem separate the classes better than the last ones (nearest neighbours: 60.0% and" in outdone


def test_a_letters_network_is_not_called_similar_to_photographs(evidence):
    measured_set = evidence(similarity=Similarity(0.5, "between", {"top": 0.1}, 0.4, BUNDLE_PRETRAINING))
    text = explain(measured_set)
    assert f"similarity is not measured: the network was {BUNDLE_PRETRAINING}" in text
    assert "similar to the pretraining" not in text
    advice = rule.derive_advice(measured_set, COSTS, NETWORK, RunRequirements(200))
    assert advice.case.endswith("of unknown similarity")


def test_a_probe_that_is_often_wrong_checks_no_labels(evidence):
    weak = explain(evidence(accuracy={"linear_probe": 0.7, "truncate:1": 0.7, "head2toe": 0.7}))
    assert "too often to check labels" in weak
    assert "too often" not in explain(evidence())


def test_labels_that_no_probe_predicts_are_reported(evidence):
    hopeless = explain(evidence(accuracy={"linear_probe": 0.5, "truncate:1": 0.48, "head2toe": 0.5}))
    assert "always predicting the commonest class gives 50.0%" in hopeless
    assert "no probe is significantly better than always predicting the commonest class" in hopeless


def test_near_duplicates_inflate_accuracy_unless_kept_together(evidence):
    for near, together, inflates in ((1, False, False), (40, False, True), (40, True, False)):
        text = explain(evidence(size={"near_copies": near}, near_together=together))
        assert f"near-duplicates: {near}" in text
        assert ("inflate the cross-validated accuracy: see --keep-near-duplicates-together" in text) is inflates


def test_trained_heads_are_not_the_measured_ones(evidence):
    assert "solved linear heads; yours are trained" in explain(evidence(), solves_heads=False)


def test_a_choice_that_is_correct_less_often_is_explained_by_its_loss(evidence):
    right = {"linear_probe": 0.9, "truncate:1": 0.8, "head2toe": 0.85, "stage_probes": 0.88}
    measured_set = evidence(accuracy=right)
    assert "lower loss" not in explain(measured_set)  # here it has the higher one
    better = replace(measured_set.probes["stage_probes"], loss=0.2)
    measured_set = replace(measured_set, probes=measured_set.probes | {"stage_probes": better})
    assert "stage_probes is correct less often than the linear probe" in explain(measured_set)
    assert "has the lower loss (0.20 against 0.30 nats)" in explain(measured_set)


@given(st.floats(0.6, 0.95), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.sampled_from([100, 300, 900, 2500]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_the_reason_agrees_with_the_decision_on_fine_tuning(evidence, share, more, mean, images):
    right = {"linear_probe": share, "truncate:1": share - 0.03, "head2toe": share + more, "stage_probes": share + mean}
    measured_set = evidence(images, images / 2, "similar", right)
    found = rule.derive_advice(measured_set, COSTS, NETWORK, RunRequirements(200))
    text = next(text for text in found.reasons if text.startswith("fine-tuning"))
    verb, points, baseline = re.search(r"to (gain|lose) ([\d.]+) points (?:over|against) (\S+),", text).groups()
    gain = float(points) if verb == "gain" else -float(points)
    if found.best.measured:
        assert baseline == found.best.policy
        fine_tuned = next(c for c in found.ranked if not c.measured)
        required = 100 * compute_required_lead(fine_tuned, found.best)
        assert gain <= required + 0.05  # rounded
        exact = 100 * (fine_tuned.accuracy - found.best.accuracy)
        assert ("not worth the time" in text) is (0.05 < exact <= 0.75)
        assert (f"less than {required:.1f} points, the uncertainty" in text) is (exact > 0.75)
    else:
        assert gain >= 0.7
        assert "not worth" not in text
        assert "uncertainty" not in text
