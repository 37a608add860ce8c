import itertools
from dataclasses import replace
from math import hypot

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.advice import requirements, rule
from transfer.advice.costs import TrainingCosts
from transfer.advice.requirements import NetworkLayout, RunRequirements

COSTS = TrainingCosts(0.01, (0.001, 0.002, 0.003, 0.01, 0.02))
NETWORK = NetworkLayout((10, 20, 30, 40, 50), (1, 4, 4, 6, 5))
REQUIREMENTS = RunRequirements(200)


def advise(evidence):
    return rule.derive_advice(evidence, COSTS, NETWORK, REQUIREMENTS)


def test_the_four_cases(evidence):
    """Where measurements do not separate the policies, each case gets the textbook's policy."""
    alike, gains = {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9}, {}
    for (images, each), kind in itertools.product([(60, 6), (2800, 90)], ["similar", "different"]):
        measured_set = evidence(images, each, kind, alike)
        for measured in measured_set.probes.values():  # right on the same images
            measured.predictions[:] = measured_set.probes["linear_probe"].predictions
        advice = advise(measured_set)
        assert advice.size == ("small" if images < 1000 else "large")
        assert advice.kind == kind
        policy = advice.best.policy
        if images < 1000:  # linear heads on frozen features, of no stage alone
            assert policy == "stage_probes"
            doubts = [text.partition(",")[0] for text in advice.reasons if "seems better" in text]
            assert doubts == ([] if kind == "similar" else ["head2toe seems better than stage_probes by 0.3 points"])
        else:
            assert policy == "lp_ft"
            gains[kind] = advice.best.accuracy - advice.runner_up.accuracy
            assert advice.runner_up.policy == "lp_ft:2"
    assert gains["different"] > 2 * gains["similar"] > 0


def test_a_clear_measurement_overrules_the_expectation(evidence):
    found = advise(evidence(800, 80, "similar", {"linear_probe": 0.7, "truncate:1": 0.9, "head2toe": 0.75}))
    assert found.best.policy == "truncate:1"
    assert found.best.accuracy == pytest.approx(0.88, abs=0.03)  # a little is left of the expectation


@pytest.mark.parametrize(("mean", "preferred"), [(0.9, True), (0.892, True), (0.8, False)])
def test_stage_probes_are_preferred_unless_the_best_leads_by_half_a_point(evidence, mean, preferred):
    right = {"linear_probe": 0.9, "truncate:1": 0.8, "head2toe": 0.8, "stage_probes": mean}
    measured_set = evidence(100, 10, "similar", right)
    every = {c.policy: c for c in rule.rate_policies(measured_set, COSTS, NETWORK, REQUIREMENTS)}
    lead = every["linear_probe"].accuracy - every["stage_probes"].accuracy
    assert (lead <= 0.005) is preferred
    found = advise(measured_set)
    assert found.best == every["stage_probes" if preferred else "linear_probe"]
    doubts = [text for text in found.reasons if text.startswith("linear_probe seems better than stage_probes by")]
    assert len(doubts) == (preferred and lead > 0)
    unsolved = rule.derive_advice(measured_set, COSTS, NETWORK, RunRequirements(200, solves_heads=False))
    assert unsolved.best == every["linear_probe"]  # stage probes must be solved


def test_a_dropped_stage_costs_by_its_share_of_the_layers(evidence):
    """With equal measurements, dropping a stage of one layer costs almost nothing, one of half the layers something."""
    measured_set = evidence(200, 20, "similar", {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9})
    for measured in measured_set.probes.values():
        measured.predictions[:] = measured_set.probes["linear_probe"].predictions
    gains = []
    for layers in ((9, 9, 9, 9, 1), (4, 4, 5, 5, 18)):
        found = {
            c.policy: c.accuracy
            for c in rule.rate_policies(measured_set, COSTS, replace(NETWORK, layers=layers), RunRequirements(0))
        }
        gains.append(found["truncate:1"] - found["linear_probe"])
    expected = -0.4 * 0.1  # of the errors, if all went
    sd, measured_sd = 0.3 * 0.1 + 0.003, 1 / 200
    for gain, share in zip(gains, (1 / 37, 1 / 2), strict=True):
        assert gain == pytest.approx(expected * share * measured_sd**2 / (sd**2 + measured_sd**2), abs=1e-4)


def test_few_images_overrule_nothing(evidence):
    found = advise(evidence(20, 10, "similar", {"linear_probe": 0.9, "truncate:1": 0.95, "head2toe": 0.9}))
    assert found.best.policy != "truncate:1"


def test_without_errors_nothing_is_fine_tuned(evidence):
    found = advise(evidence(3000, 300, "different", {"linear_probe": 0.999, "truncate:1": 0.99, "head2toe": 0.999}))
    assert found.best.measured


def test_the_advised_policy_is_valid_and_ranked_first(evidence):
    from transfer.freeze import FreezePolicy

    for kind in ("similar", "between", "different"):
        found = advise(evidence(2000, 50, kind))
        assert found.ranked[0] == found.best
        assert found.ranked[1] == found.runner_up != found.best
        measured = {"linear_probe", "truncate:1", "head2toe", "stage_probes"}
        assert {c.policy for c in found.ranked} == measured | {"lp_ft:2", "lp_ft"}
        assert str(FreezePolicy.parse(found.settings["policy"])) == found.best.policy
        if not found.best.measured:
            assert found.settings["epochs"] == found.best.epochs > 0


def test_costs_count_images_epochs_and_trained_stages(evidence):
    found = {c.policy: c for c in rule.rate_policies(evidence(1000, 100), COSTS, NETWORK, REQUIREMENTS)}
    assert found["linear_probe"].seconds == pytest.approx(200 * 0.01)
    epochs = rule.choose_epochs(1000)
    assert found["lp_ft:2"].seconds == pytest.approx(2.0 + epochs * 1000 * 0.002)
    assert found["lp_ft"].seconds == pytest.approx(2.0 + epochs * 1000 * 0.02)
    assert (found["lp_ft:2"].trained, found["lp_ft"].trained, found["head2toe"].trained) == (90, 150, 0)


def test_costs_count_uncached_views_and_every_trained_network(evidence):
    measured_set, n, epochs = evidence(1000, 100), 1000, rule.choose_epochs(1000)
    run_requirements = RunRequirements(200, networks=2, uncached_epochs=30)
    found = {c.policy: c for c in rule.rate_policies(measured_set, COSTS, NETWORK, run_requirements)}
    assert found["linear_probe"].seconds == pytest.approx(200 * 0.01 + 30 * n * 0.01)
    assert found["lp_ft:2"].seconds == pytest.approx(2.0 + epochs * n * (2 * 0.002 + 2 * 0.01))  # a trunk is left below
    assert found["lp_ft"].seconds == pytest.approx(2.0 + epochs * n * (2 * 0.02 + 0.01))
    assert (found["lp_ft:2"].trained, found["linear_probe"].trained) == (180, 0)


def test_options_without_effect_on_a_frozen_backbone_lead_to_fine_tuning(evidence):
    measured_set = evidence(20, 10, "similar", {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9})
    assert advise(measured_set).best.measured
    found = rule.derive_advice(measured_set, COSTS, NETWORK, RunRequirements(200, fine_tuning_options=("l2_sp",)))
    assert not found.best.measured
    assert found.best.accuracy == max(c.accuracy for c in found.ranked if not c.measured)
    assert any("because l2_sp would have no effect on a frozen backbone" in text for text in found.reasons)


def test_a_network_of_one_stage_is_fine_tuned_in_one_way(evidence):
    found = rule.rate_policies(evidence(), TrainingCosts(0.01, (0.02,)), NetworkLayout((10,), (3,)), RunRequirements(5))
    assert [c.policy for c in found if not c.measured] == ["lp_ft"]


def test_little_is_expected_of_fine_tuning_where_the_probe_mostly_errs(evidence):
    """On hard labels a measured gain counts, not the expectation of fine-tuning."""
    hard = {"linear_probe": 0.39, "truncate:1": 0.44, "head2toe": 0.43, "stage_probes": 0.47}
    found = advise(evidence(2254, 77, "different", hard))
    assert found.best.policy == "stage_probes"
    fine_tuned = next(c for c in found.ranked if c.policy == "lp_ft")
    assert fine_tuned.accuracy < 0.45
    easy = {"linear_probe": 0.92, "truncate:1": 0.92, "head2toe": 0.92, "stage_probes": 0.92}
    assert advise(evidence(2254, 77, "different", easy)).best.policy.startswith("lp_ft")


def test_half_the_gain_is_expected_of_a_network_without_norms(evidence):
    measured_set = evidence(2254, 77, "between", {"linear_probe": 0.8, "truncate:1": 0.8, "head2toe": 0.8})
    probe, gains = 0.8, []
    for normalised in (True, False):
        found = {
            c.policy: c.accuracy
            for c in rule.rate_policies(
                measured_set, COSTS, replace(NETWORK, normalised=normalised), RunRequirements(0)
            )
        }
        gains.append((found["lp_ft"] - probe, found["lp_ft:2"] - probe))
    assert gains[0][0] == pytest.approx(0.5 * 2254 / 2554 * 0.8**2 * 0.2)
    assert gains[0] == pytest.approx([2 * gain for gain in gains[1]])
    assert gains[0][1] == pytest.approx(0.6 * gains[0][0])


def test_the_learning_curve_extrapolates_from_a_sample(evidence):
    """A quarter was sampled: errors fall by powers of 1/4 and 1/8 at the two doublings to all."""
    right = {"linear_probe": 0.8, "truncate:1": 0.6, "head2toe": 0.8}
    few, many = (evidence(10000, 500, "similar", right, slope=slope) for slope in (0.0, 0.5))
    before, after = (
        {c.policy: c for c in rule.rate_policies(measured_set, COSTS, NETWORK, RunRequirements(0))}
        for measured_set in (few, many)
    )
    for policy in right:
        assert 1 - after[policy].accuracy == pytest.approx((1 - before[policy].accuracy) * 2**-0.375)
        assert after[policy].sd > before[policy].sd
    error = 0.2 * 2**-0.375
    fixable = 10000 / 10300 * (1 - error) ** 2 * error
    assert after["lp_ft"].accuracy == pytest.approx(1 - error + 0.2 * fixable)


def test_head_parameters_depend_on_the_policys_features(evidence):
    found = {c.policy: c.head for c in rule.rate_policies(evidence(), COSTS, NETWORK, RunRequirements(0))}
    assert found == {
        "linear_probe": 17 * 2,
        "truncate:1": 9 * 2,
        "head2toe": 41 * 2,
        "stage_probes": 41 * 2,
        "lp_ft:2": 17 * 2,
        "lp_ft": 17 * 2,
    }


def test_fine_tuning_must_gain_enough_over_the_best_frozen_policy(evidence, monkeypatch):
    """Not over the luckiest of many measurements, over which stage probes are preferred."""
    taken = set()
    for images, sds in itertools.product(range(100, 1000, 25), (0.0, 1.0)):
        monkeypatch.setattr(requirements, "MIN_LEAD_SDS", sds)
        right = {"linear_probe": 0.83, "truncate:1": 0.7, "head2toe": 0.836, "stage_probes": 0.83}
        measured_set = evidence(images, 90, "similar", right)
        for policy in ("head2toe", "stage_probes"):  # correct on nearly the same images
            measured_set.probes[policy].predictions[:] = measured_set.probes["linear_probe"].predictions
        found = advise(measured_set)
        every = {c.policy: c for c in found.ranked}
        gain, luckiest = (every["lp_ft"].accuracy - every[policy].accuracy for policy in ("stage_probes", "head2toe"))
        uncertainty = sds * hypot(every["lp_ft"].gain_sd, every["stage_probes"].gain_sd)
        assert found.best.policy == ("lp_ft" if gain > max(0.0075, uncertainty) else "stage_probes")
        taken.add((gain > 0.0075, luckiest > 0.0075, gain > max(0.0075, uncertainty)))
    # The time decides, the uncertainty, and neither of them the luckiest.
    assert taken >= {(False, False, False), (True, False, True), (True, True, True), (True, False, False)}


def test_an_expectation_from_few_labels_is_no_more_certain(evidence):
    """What fine-tuning gains shrinks with the images, its uncertainty does not; probes are less certain as well."""
    found = {}
    for images in (60, 600, 2400):
        rated = rule.rate_policies(evidence(images, 30, "between"), COSTS, NETWORK, REQUIREMENTS)
        found[images] = {c.policy: c for c in rated}
    gains = [found[n]["lp_ft"].accuracy - found[n]["linear_probe"].accuracy for n in (60, 600, 2400)]
    assert 0 < 3 * gains[0] < gains[1] < gains[2]
    fixable = 0.1 * 0.9**2
    for n, every in found.items():
        fine_tuned = every["lp_ft"]
        assert fine_tuned.gain_sd == pytest.approx(rule.PRIOR_SD_FINE_TUNING * fixable + 0.003), n
        best = max((c for c in every.values() if c.measured), key=lambda c: c.accuracy)
        assert fine_tuned.sd == pytest.approx(hypot(best.sd, fine_tuned.gain_sd))
    assert found[60]["lp_ft"].sd > 2 * found[600]["lp_ft"].sd


@given(st.integers(2, 100_000))
def test_epochs_shrink_with_images(images):
    assert rule.choose_epochs(images) >= rule.choose_epochs(images + 1)


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(-1, 1), st.floats(0.001, 1))
def test_the_posterior_is_that_of_two_normals(m0, s0, m1, s1):
    mean, sd = rule.combine_normals(m0, s0, m1, s1)
    s0 = max(s0, abs(m1 - m0) - 4 * s1)  # a surprise
    precision = 1 / s0**2 + 1 / s1**2
    assert sd == pytest.approx(precision**-0.5, rel=1e-6)
    assert mean == pytest.approx((m0 / s0**2 + m1 / s1**2) / precision, rel=1e-6, abs=1e-9)


def test_gains_are_paired():
    rng = np.random.default_rng(0)
    correct, baseline = rng.random(400) < 0.9, rng.random(400) < 0.8
    mean, sd = rule.measure_gain(correct, baseline)
    each = correct.astype(float) - baseline
    assert mean == pytest.approx(each.mean())
    assert sd == pytest.approx((each**2).mean() ** 0.5 / 20, rel=0.05)
    assert rule.measure_gain(correct, correct)[1] > 0


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_fixable_errors_are_a_part_of_the_errors_and_grow_with_images(images, error):
    fixable = rule.estimate_fixable_errors(images, error)
    assert 0 <= fixable <= min(error, 4 / 27)  # the maximum of e (1 - e)^2
    assert fixable <= rule.estimate_fixable_errors(images + 1, error)
    assert fixable == pytest.approx(images / (images + 300) * (error - 2 * error**2 + error**3), abs=1e-12)


def test_half_of_the_errors_is_fixable_with_300_images():
    assert rule.estimate_fixable_errors(rule.HALF_FIXABLE_IMAGES, 0.2) == pytest.approx(
        rule.estimate_fixable_errors(10**12, 0.2) / 2
    )
