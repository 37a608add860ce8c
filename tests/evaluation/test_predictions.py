from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from transfer.data.images.preprocessing import prepare
from transfer.data.images.read import read_pixels
from transfer.data.table import ImageTable, Target, make_softmax_target
from transfer.evaluation.predictions import (
    decide,
    evaluate_domains,
    evaluate_predictions,
    main_scores,
    note_absent_classes,
    predict_rows,
    prediction_rows,
    target_tensors,
)
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec


@pytest.fixture
def tabled() -> ImageTable:
    """Six images, two of unknown object, one of unknown domain, with two further targets."""
    listed = {
        "object": Target(np.array([0, 1, 2, -1, 0, -1]), "softmax", ("a", "b", "c")),
        "domain": Target(np.array([0, 0, 1, 1, -1, 1]), "softmax", ("x", "y", "z")),
        "glossy": Target(np.array([1, 0, -1, 1, 1, 0]), "binary", ("no", "yes")),
        "age": Target(np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0]), "regression"),
    }
    empty = np.full(6, "")
    return ImageTable(np.array(list("123456")), listed, empty, empty)


GIVEN = {
    "object": np.eye(3)[[0, 2, 2, 1, 0, 0]],
    "domain": np.eye(3)[[0, 1, 1, 1, 2, 1]],
    "glossy": np.array([0.9, 0.1, 0.7, 0.4, 0.500001, 0.5]),
    "age": np.array([1.5, 2.0, 3.0, 3.0, 5.0, 6.0]),
}


def test_decide(tabled: ImageTable) -> None:
    assert decide(tabled.targets["object"], GIVEN["object"]).tolist() == [0, 2, 2, 1, 0, 0]
    assert decide(tabled.targets["glossy"], GIVEN["glossy"]).tolist() == [1, 0, 1, 0, 1, 0]
    assert decide(tabled.targets["age"], GIVEN["age"]) is GIVEN["age"]
    assert len(decide(tabled.targets["object"], np.empty(0))) == 0


@pytest.mark.parametrize("intervals", [True, False])
def test_evaluate_predictions(tabled: ImageTable, intervals: bool) -> None:
    report = evaluate_predictions(tabled, GIVEN, intervals=intervals)
    assert {name: r["n"] for name, r in report.items()} == {"object": 4, "domain": 5, "glossy": 5, "age": 5}
    assert report["object"]["accuracy"] == 3 / 4
    assert report["domain"]["accuracy"] == 4 / 5
    assert report["glossy"]["accuracy"] == 4 / 5
    assert report["age"]["mae"] == pytest.approx((0.5 + 0 + 1 + 0 + 0) / 5)
    assert ("interval" in report["object"]) == intervals


def test_absent_classes_are_noted_with_what_the_macro_figures_mean(tabled: ImageTable) -> None:
    given = {"domain": np.eye(3)[[0, 2, 1, 1, 0, 1]]}  # no row has the domain z, which is predicted once
    (note,) = note_absent_classes(tabled, given)
    assert note.startswith("domain: 1 of 3 classes have no test image (z); balanced accuracy is the mean recall of the")
    report = evaluate_predictions(tabled, given)["domain"]
    recalls = {"x": 1 / 2, "y": 3 / 3}
    f1 = {"x": 2 * 1 / (2 + 1), "y": 2 * 3 / (3 + 3), "z": 0.0}
    assert report["balanced_accuracy"] == pytest.approx(np.mean(list(recalls.values())))
    assert report["macro_f1"] == pytest.approx(np.mean(list(f1.values())))
    assert note_absent_classes(tabled.take(np.array([0, 1, 2])), {"object": GIVEN["object"][:3]}) == []
    assert note_absent_classes(tabled.take(np.array([3, 5])), {"object": GIVEN["object"][[3, 5]]}) == []


def test_calibration_error_is_of_known_rows_with_finite_probabilities(tabled: ImageTable) -> None:
    target = tabled.targets["object"].values
    sure = np.full((6, len(tabled.objects)), 0.0)
    sure[:, 1] = 1.0  # class 1 with certainty: the error is the share of known rows of another class
    expected = np.mean([value != 1 for value in target if value >= 0])
    report = evaluate_predictions(tabled, {"object": sure})["object"]
    assert report["calibration_error"] == pytest.approx(expected)
    assert "calibration_error" not in evaluate_predictions(tabled, {"age": GIVEN["age"]})["age"]
    assert "calibration_error" not in evaluate_predictions(tabled, {"object": sure * np.nan})["object"]


def test_evaluate_predictions_without_any_known_label(tabled: ImageTable) -> None:
    none = replace(tabled.targets["object"], values=np.full(6, -1))
    table = replace(tabled, targets=tabled.targets | {"object": none})
    for intervals in (True, False):
        assert evaluate_predictions(table, {"object": GIVEN["object"]}, intervals=intervals) == {"object": {"n": 0}}


def test_evaluate_domains(tabled: ImageTable) -> None:
    report = evaluate_domains(tabled, GIVEN)
    assert set(report) == {"x", "y"}  # nothing is from z
    assert report["x"]["object"] == {"n": 2, "accuracy": 0.5}
    assert report["y"]["object"] == {"n": 1, "accuracy": 1.0}
    assert report["x"]["domain"] == {"n": 2, "accuracy": 0.5}
    assert report["y"]["domain"] == {"n": 3, "accuracy": 1.0}
    assert report["y"]["age"]["n"] == 3


def test_main_scores() -> None:
    specs = {"object": HeadSpec("object", classes=("a", "b")), "age": HeadSpec("age", "regression")}
    assert main_scores({"object": {"accuracy": 0.5}, "age": {"r2": 0.2}}, specs) == {"object": 0.5, "age": 0.2}
    assert main_scores({"object": {"n": 0}}, specs) == {"object": 0.0}
    assert main_scores({}, specs) == {}


@pytest.mark.parametrize("batch_size", [5, 64])
@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("policy", ["linear_probe", "partial:1", "full"])
def test_predict_rows(
    taught: Callable[..., Any], images: ImageTable, digests: np.ndarray, policy: str, compose: str, batch_size: int
) -> None:
    """Image by image, in the requested order."""
    model, plan = taught(policy, compose=compose)
    model.freeze(plan.phases[0])
    model.train()
    rows = np.random.default_rng(0).permutation(len(images))[:11]
    feed = TrunkCache().feed(model, images.paths, digests, batch_size=batch_size, workers=1)
    predictions, loss = predict_rows(model, feed, rows, target_tensors(images, model))
    assert not model.training
    costs = []
    for i, row in enumerate(rows):
        alone = model.predict(prepare(read_pixels(str(images.paths[row])), model.backbone.preprocessing)[None])
        for name in ("object", "domain"):
            assert predictions[name][i] == pytest.approx(alone[name][0].numpy(), abs=2e-3)
        o, d = images.object[row], images.domain[row]
        if compose == "dual":
            costs.append(-np.log(predictions["object"][i][o]) - np.log(predictions["domain"][i][d]))
        else:
            with torch.no_grad():
                x = prepare(read_pixels(str(images.paths[row])), model.backbone.preprocessing)[None]
                costs.append(-float(model(model.trunk(x))["joint"][0, d, o]))
    assert loss == pytest.approx(np.mean(costs), rel=5e-3)


def test_predict_rows_of_no_rows(taught: Callable[..., Any], images: ImageTable, digests: np.ndarray) -> None:
    model, plan = taught()
    model.freeze(plan.phases[0])
    feed = TrunkCache().feed(model, images.paths, digests, batch_size=8, workers=1)
    predictions, loss = predict_rows(model, feed, np.empty(0, dtype=np.int64), target_tensors(images, model))
    assert loss == 0.0
    assert {name: len(values) for name, values in predictions.items()} == {"object": 0, "domain": 0}


def test_target_tensors(taught: Callable[..., Any], images: ImageTable) -> None:
    model, _ = taught(heads=("object",))
    given = target_tensors(images, model)
    assert list(given) == ["object"]
    assert given["object"].tolist() == images.object.tolist()
    assert given["object"].dtype == torch.int64


def test_rows_have_the_truth_the_prediction_and_its_probability():
    targets = {
        "object": make_softmax_target(["mug", "", "pen"]),
        "dry": Target(np.array([0, 1, 1]), "binary", ("no", "yes")),
        "age": Target(np.array([1.0, 2.0, 3.5]), "regression"),
    }
    empty = np.full(3, "")
    table = ImageTable(np.array(["a.png", "b.png", "c.png"]), targets, empty, empty, "three")
    predictions = {
        "object": np.array([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]),
        "dry": np.array([0.2, 0.9, 0.3]),
        "age": np.array([1.5, 2.0, 3.0]),
    }
    rows = prediction_rows(table, predictions)
    assert [row["path"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert [row["object"] for row in rows] == ["mug", "", "pen"]
    assert [row["object_predicted"] for row in rows] == ["mug", "pen", "mug"]
    assert [row["object_probability"] for row in rows] == [0.9, 0.75, 0.6]
    assert [row["dry_predicted"] for row in rows] == ["no", "yes", "no"]
    assert [row["dry_probability"] for row in rows] == [0.8, 0.9, 0.7]
    assert [(row["age"], row["age_predicted"]) for row in rows] == [(1.0, 1.5), (2.0, 2.0), (3.5, 3.0)]
