import re
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.advice import rule
from transfer.advice.costs import Costs
from transfer.advice.network import Network
from transfer.advice.requirements import Asked
from transfer.advice.similarity import Similarity
from transfer.advice.transferability.noise import LabelNoise

COSTS = Costs(0.01, (0.001, 0.002, 0.003, 0.01, 0.02))
NETWORK = Network((10, 20, 30, 40, 50), (1, 4, 4, 6, 5))


def said(evidence, **settings):
    return " ".join(rule.advise(evidence, COSTS, NETWORK, Asked(200, **settings)).reasons)


def test_more_is_said_where_there_is_more_to_say(evidence):
    plain = said(evidence())
    for word in ("copies", "balance", "labels look wrong", "fewer than 5", "cross-validated", "not surely", "solved"):
        assert word not in plain
    noise = LabelNoise(10, 0.1, np.array([1]), np.array([0]))
    facts = {"copies": 3, "imbalance": 9.0, "small_classes": ("a",)}
    more = said(evidence(size=facts, noise=noise))
    for word in (
        "copies of other images: 3",
        "balance loss",
        "10 of 100 labels look wrong",
        "classes with fewer than 5 images: 1",
    ):
        assert word in more


def test_long_times_are_not_told_in_seconds(evidence):
    assert re.search(r"and to take \d+ s", said(evidence(20, 10)))
    assert re.search(r"and to take \d+ min", said(evidence(9864, 329, "different")))


def test_what_is_met_already_is_not_advised(evidence):
    some = evidence(size={"imbalance": 9.0})
    assert "consider --balance loss" in said(some)
    assert "--balance" not in said(some, balanced=True)


def test_images_are_counted_as_their_owner_does(evidence):
    some = said(evidence(), total=225, tested=25)
    assert "small: of 225 images 25 are kept for testing, 100 are labelled to learn from, of 2 classes" in some
    part = said(evidence(10000, 500, slope=0.5))  # two doublings, with powers of 1/4 and 1/8
    assert "cross-validated on 2500 of these" in part
    assert "a probe of all 10000 makes 77% of the errors" in part


def test_where_nothing_is_known_of_the_pretraining_nothing_is_claimed(evidence):
    unknown = said(evidence(similarity=Similarity(0.5, "between", {}, None)))
    assert "nothing in the network tells how similar they are" in unknown
    assert "neither similar" not in unknown
    some = evidence(similarity=Similarity(0.9, "between", {}, 0.4, "stem"))
    outdone = said(replace(some, neighbours={"stem": 0.6, "top": 0.5}))
    assert "features of stem tell them apart better than the last ones (nearest neighbours right: 60.0%" in outdone


def test_labels_that_nothing_tells_are_called_so(evidence):
    hopeless = said(evidence(accuracy={"linear_probe": 0.5, "truncate:1": 0.48, "head2toe": 0.5}))
    assert "always the commonest class 50.0%" in hopeless
    assert "not surely better than always the commonest class: frozen features" in hopeless


def test_near_copies_flatter_unless_kept_together(evidence):
    for near, together, flatters in ((1, False, False), (40, False, True), (40, True, False)):
        text = said(evidence(size={"near_copies": near}, near_together=together))
        assert f"near copies: {near}" in text
        assert ("flatters what is measured: see --keep-near-duplicates-together" in text) is flatters


def test_heads_that_are_not_solved_are_told_apart_from_what_was_measured(evidence):
    assert "linear heads that are solved; yours are trained otherwise" in said(evidence(), solved=False)


@given(st.floats(0.6, 0.95), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02), st.sampled_from([100, 300, 900, 2500]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_what_is_said_of_fine_tuning_is_what_was_decided(evidence, share, more, mean, images):
    right = {"linear_probe": share, "truncate:1": share - 0.03, "head2toe": share + more, "stage_probes": share + mean}
    some = evidence(images, images / 2, "similar", right)
    found = rule.advise(some, COSTS, NETWORK, Asked(200))
    text = next(text for text in found.reasons if text.startswith("fine-tuning"))
    points, beside = text.split(" to have ")[1].split(",")[0].split(" points beside ")
    if found.best.measured:
        assert beside == found.best.policy
        assert float(points) <= 0.8  # 0.75, rounded
    else:
        assert float(points) >= 0.7
        assert "not worth" not in text
