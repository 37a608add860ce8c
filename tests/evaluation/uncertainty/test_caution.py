from dataclasses import replace

import numpy as np
import pytest
import torch

from transfer.errors import TransferError
from transfer.evaluation.uncertainty.caution import choose_caution
from transfer.evaluation.uncertainty.conformal import PredictionSets
from transfer.evaluation.uncertainty.record import PAIRS, Uncertainty
from transfer.evaluation.uncertainty.unknown import UnknownScore
from transfer.heads import HeadSpec

SPECS = {
    "object": HeadSpec("object", classes=("cup", "mug", "pan")),
    "domain": HeadSpec("domain", classes=("shop", "web")),
    "age": HeadSpec("age", "regression"),
}
PREDICTED = {
    "object": np.array([[0.1, 0.5, 0.4], [0.02, 0.95, 0.03]], np.float32),
    "domain": np.array([[0.9, 0.1], [0.45, 0.55]], np.float32),
    "age": np.array([3.0, 4.0]),
}
# Thresholds are 0.65 and 0.5 at a coverage of 0.75: classes of at least 0.35, and of at least 0.5.
UNCERTAINTY = Uncertainty(
    {
        "object": PredictionSets(np.array([0.1, 0.2, 0.65]), np.array([0, 1, 2]), 3),
        "domain": PredictionSets(np.array([0.1, 0.2, 0.5]), np.array([0, 1, 1]), 2),
        PAIRS: PredictionSets(np.array([0.2, 0.3, 0.6]), np.array([0, 1, 2]), 6),
    },
    "held out",
)


def answered(caution):
    rows = [{"object": "mug", "domain": "shop", "age": 3.0}, {"object": "mug", "domain": "web", "age": 4.0}]
    caution.complete(rows, SPECS, PREDICTED)
    return rows


def test_sets_list_the_likely_classes_the_likeliest_first():
    first, second = answered(choose_caution(UNCERTAINTY, 0.75, 0.0))
    assert (first["object_set"], second["object_set"]) == (["mug", "pan"], ["mug"])
    assert (first["domain_set"], second["domain_set"]) == (["shop"], ["web"])
    assert first[f"{PAIRS}_set"] == [["mug", "shop"]]  # 0.45; pan in shop is 0.36, below 0.4
    assert second[f"{PAIRS}_set"] == [["mug", "web"], ["mug", "shop"]]  # 0.52, 0.43
    assert (first["object"], first["age"]) == ("mug", 3.0)
    assert "age_set" not in first


def test_low_confidence_is_no_answer():
    first, second = answered(choose_caution(None, None, 0.6))
    assert (first["object"], first["domain"], first["age"]) == (None, "shop", 3.0)
    assert (second["object"], second["domain"]) == ("mug", None)
    assert not [key for key in first if key.endswith("_set")]


def test_strange_images_have_a_score_and_on_request_no_object():
    unknown = UnknownScore("msp", {}, torch.empty(0))
    rows = [{"object": "mug", "domain": "shop"}, {"object": "mug", "domain": "web"}]
    uncertainty = replace(UNCERTAINTY, unknown=unknown)
    choose_caution(uncertainty, None, 0.0).complete(rows, SPECS, PREDICTED, np.array([0.123456, 1.0]))
    assert [row["object_unknown"] for row in rows] == [0.1235, 1.0]
    assert [row["object"] for row in rows] == ["mug", "mug"]
    choose_caution(uncertainty, 0.75, 0.0, 0.99).complete(rows, SPECS, PREDICTED, np.array([0.123456, 1.0]))
    assert [row["object"] for row in rows] == ["mug", None]
    assert rows[1]["domain"] == "web"
    assert rows[1]["object_set"] == ["mug"]


def test_nothing_asked_for():
    assert choose_caution(UNCERTAINTY, None, 0.0) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 0.9, 0.0), "the run has no prediction sets"),
        ((UNCERTAINTY, 1.0, 0.0), "coverage 1: it must be above 0 and below 1"),
        ((UNCERTAINTY, None, 1.5), "min_confidence 1.5: it must be a probability"),
        ((UNCERTAINTY, None, 0.0, 0.9), "max_unknown: the run has no unknown score"),
        ((UNCERTAINTY, None, 0.0, -0.1), "max_unknown -0.1: it must be a share"),
    ],
)
def test_what_cannot_be(given, message):
    with pytest.raises(TransferError, match=message):
        choose_caution(*given)
