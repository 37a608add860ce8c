"""Which images are predicted by which heads: probes of the other folds, or the model itself."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from model_states import changed_names, copy_state

from transfer.evaluation.predictions import target_tensors
from transfer.evaluation.uncertainty.unknown import UnknownScore
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes import held_out_images
from transfer.probes.held_out import cross_fit
from transfer.probes.held_out_images import LabelledRows, predict_held_out
from transfer.probes.left_out_classes import measure_left_out


@pytest.fixture
def labelled(taught: Any, data: Any) -> LabelledRows:
    """The rows of a network whose heads are not trained yet."""
    model, plan = taught()
    model.freeze(plan.phases[-1])
    feed = TrunkCache().feed(model.eval(), data.table.paths, data.digests, batch_size=64, workers=1)
    folds = np.random.default_rng(0).integers(0, 5, len(data.table))
    return LabelledRows(feed, target_tensors(data.table, model), data.train, data.val, folds=folds)


def test_few_rows_are_predicted_by_probes_of_their_own(labelled: LabelledRows) -> None:
    """All rows, with the L2 value, weights, smoothing and temperatures of the run; the model's heads stay."""
    feed, rows = labelled.feed, np.sort(np.concatenate([labelled.train, labelled.val]))
    features = torch.cat([x for _, x in feed.batches(rows)])
    targets = {name: values[rows] for name, values in labelled.labels.items()}
    folds, before = labelled.folds[rows], copy_state(feed.model)
    weights = {"object": torch.linspace(0.1, 5, len(feed.paths))}
    results = []
    for l2, weight, smoothing in ((0.05, {}, 0.0), (5.0, {}, 0.0), (5.0, weights, 0.0), (5.0, {}, 0.2)):
        given = replace(labelled, weights=weight, smoothing=smoothing)
        solution, temperatures = {"object": l2, "domain": l2}, {"object": 2.0}
        found = predict_held_out(given, solution, temperatures, seed=3)
        assert found.method == "cross-conformal, 5 folds"
        assert found.rows.tolist() == rows.tolist()
        outputs = cross_fit(
            copy.deepcopy(feed.model.heads),
            (features, targets),
            folds,
            temperatures,
            smoothing=smoothing,
            row_weights={name: values[rows] for name, values in weight.items()} or None,
            fixed_l2=solution,
        )
        expected = feed.model.heads.predictions(outputs)
        for name in ("object", "domain"):
            np.testing.assert_array_equal(found.predictions[name], expected[name].numpy())
        results.append(found.predictions["object"])
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(results, 2))
    assert changed_names(copy_state(feed.model), before) == set()


@pytest.mark.parametrize("case", ["many rows", "no probe"])
def test_else_the_model_predicts_the_validation_rows(
    labelled: LabelledRows, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(held_out_images, "MAX_CROSS_FITTED", 35 if case == "many rows" else 36)
    assert len(labelled.train) + len(labelled.val) == 36
    solution = {"object": 0.1, "domain": 0.1}
    found = predict_held_out(labelled, solution if case == "many rows" else None, {}, seed=0)
    assert found.method == "split-conformal, validation images"
    assert found.rows.tolist() == labelled.val.tolist()
    with torch.no_grad():
        out = labelled.feed.model.heads(torch.cat([x for _, x in labelled.feed.batches(labelled.val)]))
    for name in ("object", "domain"):
        np.testing.assert_allclose(found.predictions[name], out[name].softmax(1).numpy(), atol=1e-6)
    empty = predict_held_out(replace(labelled, val=labelled.val[:0]), None, {}, seed=0)
    assert (len(empty.rows), empty.predictions) == (0, {})
    monkeypatch.setattr(held_out_images, "MAX_CROSS_FITTED", 36)
    assert predict_held_out(labelled, solution, {}, seed=0).method != found.method
    one_group = replace(labelled, folds=np.full(len(labelled.folds), -1))
    assert predict_held_out(one_group, solution, {}, seed=0).method == found.method
    monkeypatch.setattr(held_out_images, "MAX_CROSS_FITTED_OUTPUTS", 100)  # 3 classes x 36 rows are more
    assert predict_held_out(labelled, solution, {}, seed=0).method == found.method


SOLUTION, TEMPERATURES = {"object": 0.5, "domain": 0.5}, {"object": 2.0}


def with_unknown_labels(data: LabelledRows) -> LabelledRows:
    """Return `data` in which every seventh row has no object; the first class keeps some."""
    labels = data.labels["object"].clone()
    labels[::7] = -1
    assert (labels == 0).any()
    return replace(data, labels={**data.labels, "object": labels})


def select(data: LabelledRows, rows: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """Return features, targets and folds of `rows`."""
    features = torch.cat([x for _, x in data.feed.batches(rows)])
    return features, {name: values[rows] for name, values in data.labels.items()}, data.folds[rows]


def test_the_unknown_score_is_the_one_that_finds_left_out_classes_best(labelled: LabelledRows) -> None:
    """Each image's score for reference is by features and heads of the other folds; unlabelled ones have none."""
    data = with_unknown_labels(labelled)
    x, targets, folds = select(data, np.union1d(data.train, data.val))
    unknown = predict_held_out(data, SOLUTION, TEMPERATURES, seed=3).unknown
    assert unknown
    heads = data.feed.model.heads
    aurocs = measure_left_out(copy.deepcopy(heads), (x, targets), folds, TEMPERATURES, 3, fixed_l2=SOLUTION)
    assert unknown.aurocs == aurocs
    assert (unknown.name, unknown.reason) == (
        max(aurocs, key=lambda name: aurocs[name]),
        "best at finding classes that were left out",
    )
    known, labels = targets["object"] >= 0, targets["object"]
    for name, values in UnknownScore.fitted(unknown.name, x[known], labels[known]).state.items():
        torch.testing.assert_close(unknown.state[name], values)
    logits = cross_fit(copy.deepcopy(heads), (x, targets), folds, TEMPERATURES, fixed_l2=SOLUTION)["object"]
    expected = []
    for fold in range(5):
        inside, outside = known & (torch.from_numpy(folds) == fold), known & (torch.from_numpy(folds) != fold)
        score = UnknownScore.fitted(unknown.name, x[outside], labels[outside])
        expected += score.compute(x[inside], logits[inside]).tolist()
    assert unknown.reference.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["mahalanobis", "guided"])
def test_any_score_is_fitted_on_the_device_of_the_network(
    labelled: LabelledRows, monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    """Held-out outputs and labels are on the CPU."""
    scores = dict.fromkeys(("energy", "msp", "knn", "guided", "mahalanobis"), 0.5) | {name: 0.9}
    monkeypatch.setattr(held_out_images, "measure_left_out", lambda *_, **__: scores)
    labelled.feed.model.to(device)
    found = predict_held_out(labelled, SOLUTION, TEMPERATURES, seed=3)
    assert found.unknown
    assert found.unknown.name == name
    assert len(found.unknown.reference) == len(found.rows)
    assert found.unknown.reference.isfinite().all()


@pytest.mark.parametrize("chosen", [True, False])
def test_else_the_reference_is_of_the_validation_images(
    labelled: LabelledRows, monkeypatch: pytest.MonkeyPatch, chosen: bool
) -> None:
    """Of many images the score is chosen on a sample of the training images; without a probe there is no choice."""
    monkeypatch.setattr(held_out_images, "MAX_CROSS_FITTED", 20)
    data = with_unknown_labels(labelled)
    assert len(data.train) > 20
    unknown = predict_held_out(data, SOLUTION if chosen else None, TEMPERATURES, seed=3).unknown
    assert unknown
    heads = data.feed.model.heads
    if chosen:
        x, targets, folds = select(data, np.sort(np.random.default_rng(3).permutation(data.train)[:20]))
        aurocs = measure_left_out(copy.deepcopy(heads), (x, targets), folds, TEMPERATURES, 3, fixed_l2=SOLUTION)
        assert unknown.aurocs == aurocs
        known = targets["object"] >= 0
        score = UnknownScore.fitted(max(aurocs, key=lambda name: aurocs[name]), x[known], targets["object"][known])
        assert unknown.name == score.name
    else:
        assert (unknown.name, unknown.aurocs) == ("msp", {})
        assert unknown.reason.startswith("not chosen: classes are left out of solved linear probes")
        score = UnknownScore.fitted("msp", torch.empty(0), torch.empty(0))
    x, targets, _ = select(data, data.val[data.labels["object"][data.val] >= 0])
    with torch.no_grad():
        expected = score.compute(x, heads(x)["object"]).tolist()
    assert unknown.reference.tolist() == pytest.approx(expected, abs=1e-6)
    blank = replace(data, labels={**data.labels, "object": torch.full_like(data.labels["object"], -1)})
    assert predict_held_out(blank, None, {}, seed=0).unknown is None


@pytest.mark.parametrize("spec", [HeadSpec("domain", classes=("x", "y")), HeadSpec("object", kind="regression")])
def test_heads_that_choose_no_object_have_no_unknown_score(labelled: LabelledRows, spec: HeadSpec) -> None:
    model = labelled.feed.model
    model.heads = Heads((spec,), model.backbone.width)
    targets = {spec.name: torch.arange(len(labelled.folds)) % 2}
    found = predict_held_out(replace(labelled, labels=targets), {spec.name: 0.5}, {}, seed=0)
    assert found.predictions[spec.name].shape[0] == len(found.rows) == 36
    assert found.unknown is None


def test_two_folds_are_enough(labelled: LabelledRows) -> None:
    found = predict_held_out(replace(labelled, folds=labelled.folds % 2), SOLUTION, {}, seed=0)
    assert found.method == "cross-conformal, 2 folds"
