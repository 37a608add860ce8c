import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.advice import rule
from transfer.advice.costs import Costs
from transfer.advice.network import Network
from transfer.advice.requirements import Asked

COSTS = Costs(0.01, (0.001, 0.002, 0.003, 0.01, 0.02))
NETWORK = Network((10, 20, 30, 40, 50), (1, 4, 4, 6, 5))
ASKED = Asked(200)


def advise(evidence):
    return rule.advise(evidence, COSTS, NETWORK, ASKED)


def test_the_four_cases(evidence):
    """Where measurements do not tell policies apart, each case is answered as the textbook does."""
    alike, gains = {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9}, {}
    for (images, each), kind in itertools.product([(60, 6), (2800, 90)], ["similar", "different"]):
        some = evidence(images, each, kind, alike)
        for measured in some.probes.values():  # right on the same images
            measured.predictions[:] = some.probes["linear_probe"].predictions
        advice = advise(some)
        assert advice.size == ("small" if images < 1000 else "large")
        assert advice.kind == kind
        policy = advice.best.policy
        if images < 1000:  # linear heads on frozen features, of no stage alone
            assert policy == "stage_probes"
            told = [text.partition(",")[0] for text in advice.reasons if "seems better" in text]
            assert told == ([] if kind == "similar" else ["head2toe seems better than stage_probes by 0.3 points"])
        else:
            assert policy == "lp_ft"
            gains[kind] = advice.best.accuracy - advice.runner_up.accuracy
            assert advice.runner_up.policy == "lp_ft:2"
    assert gains["different"] > 2 * gains["similar"] > 0


def test_a_clear_measurement_overrules_what_was_expected(evidence):
    found = advise(evidence(800, 80, "similar", {"linear_probe": 0.7, "truncate:1": 0.9, "head2toe": 0.75}))
    assert found.best.policy == "truncate:1"
    assert found.best.accuracy == pytest.approx(0.88, abs=0.03)  # a little is left of the expectation


@pytest.mark.parametrize(("mean", "gives_way"), [(0.9, True), (0.892, True), (0.8, False)])
def test_the_best_gives_way_to_the_mean_of_several_unless_it_is_half_a_point_ahead(evidence, mean, gives_way):
    right = {"linear_probe": 0.9, "truncate:1": 0.8, "head2toe": 0.8, "stage_probes": mean}
    some = evidence(100, 10, "similar", right)
    every = {c.policy: c for c in rule.candidates(some, COSTS, NETWORK, ASKED)}
    ahead = every["linear_probe"].accuracy - every["stage_probes"].accuracy
    assert (ahead <= 0.005) is gives_way
    found = advise(some)
    assert found.best == every["stage_probes" if gives_way else "linear_probe"]
    said = [text for text in found.reasons if text.startswith("linear_probe seems better than stage_probes by")]
    assert len(said) == (gives_way and ahead > 0)
    unsolved = rule.advise(some, COSTS, NETWORK, Asked(200, solved=False))
    assert unsolved.best == every["linear_probe"]  # the mean of several cannot be had


def test_a_stage_costs_what_share_of_the_layers_it_has(evidence):
    """Measured alike, a stage of one layer is dropped at no loss to speak of, one of half of all at a loss."""
    some = evidence(200, 20, "similar", {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9})
    for measured in some.probes.values():
        measured.predictions[:] = some.probes["linear_probe"].predictions
    gains = []
    for layers in ((9, 9, 9, 9, 1), (4, 4, 5, 5, 18)):
        found = {c.policy: c.accuracy for c in rule.candidates(some, COSTS, replace(NETWORK, layers=layers), Asked(0))}
        gains.append(found["truncate:1"] - found["linear_probe"])
    expected = -0.4 * 0.1  # of the errors, if all went
    sd, measured_sd = 0.3 * 0.1 + 0.003, 1 / 200
    for gain, share in zip(gains, (1 / 37, 1 / 2), strict=True):
        assert gain == pytest.approx(expected * share * measured_sd**2 / (sd**2 + measured_sd**2), abs=1e-4)


def test_few_images_overrule_nothing(evidence):
    found = advise(evidence(20, 10, "similar", {"linear_probe": 0.9, "truncate:1": 0.95, "head2toe": 0.9}))
    assert found.best.policy != "truncate:1"


def test_where_all_is_right_nothing_is_fine_tuned(evidence):
    found = advise(evidence(3000, 300, "different", {"linear_probe": 0.999, "truncate:1": 0.99, "head2toe": 0.999}))
    assert found.best.measured


def test_what_is_advised_can_be_carried_out_and_is_ranked_first(evidence):
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


def test_costs_count_the_images_the_epochs_and_what_learns(evidence):
    found = {c.policy: c for c in rule.candidates(evidence(1000, 100), COSTS, NETWORK, ASKED)}
    assert found["linear_probe"].seconds == pytest.approx(200 * 0.01)
    epochs = rule.epochs_for(1000)
    assert found["lp_ft:2"].seconds == pytest.approx(2.0 + epochs * 1000 * 0.002)
    assert found["lp_ft"].seconds == pytest.approx(2.0 + epochs * 1000 * 0.02)
    assert (found["lp_ft:2"].trained, found["lp_ft"].trained, found["head2toe"].trained) == (90, 150, 0)


def test_costs_count_fresh_views_and_every_network_that_learns(evidence):
    some, n, epochs = evidence(1000, 100), 1000, rule.epochs_for(1000)
    asked = Asked(200, networks=2, fresh=30)
    found = {c.policy: c for c in rule.candidates(some, COSTS, NETWORK, asked)}
    assert found["linear_probe"].seconds == pytest.approx(200 * 0.01 + 30 * n * 0.01)
    assert found["lp_ft:2"].seconds == pytest.approx(2.0 + epochs * n * (2 * 0.002 + 2 * 0.01))  # a trunk is left below
    assert found["lp_ft"].seconds == pytest.approx(2.0 + epochs * n * (2 * 0.02 + 0.01))
    assert (found["lp_ft:2"].trained, found["linear_probe"].trained) == (180, 0)


def test_options_that_want_a_backbone_that_learns_get_one(evidence):
    some = evidence(20, 10, "similar", {"linear_probe": 0.9, "truncate:1": 0.9, "head2toe": 0.9})
    assert advise(some).best.measured
    found = rule.advise(some, COSTS, NETWORK, Asked(200, learns=("l2_sp",)))
    assert not found.best.measured
    assert found.best.accuracy == max(c.accuracy for c in found.ranked if not c.measured)
    assert any("no choice, as it knows nothing of l2_sp" in text for text in found.reasons)


def test_a_network_of_one_stage_is_fine_tuned_in_one_way(evidence):
    found = rule.candidates(evidence(), Costs(0.01, (0.02,)), Network((10,), (3,)), Asked(5))
    assert [c.policy for c in found if not c.measured] == ["lp_ft"]


def test_where_the_probe_nearly_always_errs_fine_tuning_promises_little(evidence):
    """Of many images of which little can be told, what a measured policy mends counts, not what is hoped for."""
    hard = {"linear_probe": 0.39, "truncate:1": 0.44, "head2toe": 0.43, "stage_probes": 0.47}
    found = advise(evidence(2254, 77, "different", hard))
    assert found.best.policy == "stage_probes"
    learnt = next(c for c in found.ranked if c.policy == "lp_ft")
    assert learnt.accuracy < 0.45
    easy = {"linear_probe": 0.92, "truncate:1": 0.92, "head2toe": 0.92, "stage_probes": 0.92}
    assert advise(evidence(2254, 77, "different", easy)).best.policy.startswith("lp_ft")


def test_a_network_without_norms_is_expected_to_learn_half_as_much(evidence):
    some = evidence(2254, 77, "between", {"linear_probe": 0.8, "truncate:1": 0.8, "head2toe": 0.8})
    probe, gains = 0.8, []
    for normed in (True, False):
        found = {c.policy: c.accuracy for c in rule.candidates(some, COSTS, replace(NETWORK, normed=normed), Asked(0))}
        gains.append((found["lp_ft"] - probe, found["lp_ft:2"] - probe))
    assert gains[0][0] == pytest.approx(0.5 * 2254 / 2554 * 0.8**2 * 0.2)
    assert gains[0] == pytest.approx([2 * gain for gain in gains[1]])
    assert gains[0][1] == pytest.approx(0.6 * gains[0][0])


def test_what_was_judged_by_a_part_is_expected_of_all(evidence):
    """A quarter was judged: errors fall by powers of 1/4 and 1/8 at the two doublings to all."""
    right = {"linear_probe": 0.8, "truncate:1": 0.6, "head2toe": 0.8}
    few, many = (evidence(10000, 500, "similar", right, slope=slope) for slope in (0.0, 0.5))
    before, after = ({c.policy: c for c in rule.candidates(some, COSTS, NETWORK, Asked(0))} for some in (few, many))
    for policy in right:
        assert 1 - after[policy].accuracy == pytest.approx((1 - before[policy].accuracy) * 2**-0.375)
        assert after[policy].sd > before[policy].sd
    error = 0.2 * 2**-0.375
    reach = 10000 / 10300 * (1 - error) ** 2 * error
    assert after["lp_ft"].accuracy == pytest.approx(1 - error + 0.2 * reach)


def test_a_head_counts_the_features_that_its_policy_has(evidence):
    found = {c.policy: c.head for c in rule.candidates(evidence(), COSTS, NETWORK, Asked(0))}
    assert found == {
        "linear_probe": 17 * 2,
        "truncate:1": 9 * 2,
        "head2toe": 41 * 2,
        "stage_probes": 41 * 2,
        "lp_ft:2": 17 * 2,
        "lp_ft": 17 * 2,
    }


def test_fine_tuning_must_be_worth_it_beside_what_would_be_taken_else(evidence):
    """Not beside the luckiest of many measurements, which gives way to the mean of several."""
    taken = set()
    for images in range(100, 1000, 25):
        right = {"linear_probe": 0.83, "truncate:1": 0.7, "head2toe": 0.836, "stage_probes": 0.83}
        found = advise(evidence(images, 90, "similar", right))
        every = {c.policy: c.accuracy for c in found.ranked}
        gain, luckiest = (every["lp_ft"] - every[policy] for policy in ("stage_probes", "head2toe"))
        assert found.best.policy == ("lp_ft" if gain > 0.0075 else "stage_probes")
        taken.add((gain > 0.0075, luckiest > 0.0075))
    assert taken == {(False, False), (True, False), (True, True)}


@given(st.integers(2, 100_000))
def test_epochs_shrink_with_images(images):
    assert rule.epochs_for(images) >= rule.epochs_for(images + 1)
