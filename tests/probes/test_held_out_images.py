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
from transfer.feature_cache import TrunkCache
from transfer.probes import held_out_images
from transfer.probes.held_out import cross_fit
from transfer.probes.held_out_images import LabelledRows, predict_held_out


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
