"""Labelled images are predicted by probes that saw neither their labels nor what was propagated from them."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from model_states import copy_state

from transfer.config.train import TrainConfig
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import Feed, TrunkCache
from transfer.probes.held_out import cross_fit
from transfer.semi_supervised import choose, held_out_labels
from transfer.semi_supervised.held_out_labels import PropagatedRows, predict_held_out_labels
from transfer.training.train import train

L2 = {"object": 0.1, "domain": 0.1}


@pytest.fixture
def feed(taught: Any, data: Any) -> Feed:
    model, plan = taught()
    model.freeze(plan.phases[-1])
    return TrunkCache().feed(model.eval(), data.table.paths, data.digests, batch_size=64, workers=1)


def test_predictions_are_those_of_probes_on_the_other_folds(feed: Feed, data: Any) -> None:
    """Where the labels of all remaining rows are given, they are those of `cross_fit`, with its temperatures."""
    rows, labels = np.union1d(data.train, data.val), target_tensors(data.table, feed.model)
    folds, before = np.arange(len(rows)) % 3, copy_state(feed.model)
    requested: list[np.ndarray] = []

    def propagate(left: np.ndarray) -> PropagatedRows:
        requested.append(left)
        return PropagatedRows(left, labels, {})

    temperatures = {"object": 2.0}
    found = predict_held_out_labels(feed, rows, folds, propagate, L2, temperatures)
    assert found
    assert found.rows.tolist() == rows.tolist()
    assert [left.tolist() for left in requested] == [rows[folds != fold].tolist() for fold in range(3)]
    index, heads = torch.from_numpy(rows), feed.model.heads
    features, targets = feed.load_all_views(rows)[1], {name: values[index] for name, values in labels.items()}
    outputs = cross_fit(copy.deepcopy(heads), (features, targets), folds, temperatures, fixed_l2=L2)
    for name, expected in heads.predictions(outputs).items():
        np.testing.assert_allclose(found.predictions[name], expected.numpy(), atol=0.02)
    after = copy_state(feed.model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_rows_that_are_never_held_out_always_count(feed: Feed, data: Any) -> None:
    rows, labels = np.union1d(data.train, data.val), target_tensors(data.table, feed.model)
    folds = np.where(np.arange(len(rows)) < 12, np.arange(len(rows)) % 2, -1)
    requested = []

    def propagate(left: np.ndarray) -> PropagatedRows:
        requested.append(set(left.tolist()))
        return PropagatedRows(left, labels, {})

    found = predict_held_out_labels(feed, rows, folds, propagate, L2, {})
    assert found
    assert found.rows.tolist() == rows[:12].tolist()
    assert all(set(rows[12:].tolist()) <= left for left in requested)


def test_too_many_rows_and_too_few_labels_give_none(feed: Feed, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.union1d(data.train, data.val)
    few = np.where(np.arange(len(rows)) < 9, np.arange(len(rows)) % 2, -1)
    folds = np.arange(len(rows)) % 2

    def propagate(left: np.ndarray) -> PropagatedRows:
        raise AssertionError(left)

    assert predict_held_out_labels(feed, rows, few, propagate, L2, {}) is None
    assert predict_held_out_labels(feed, rows, np.zeros(len(rows), int), propagate, L2, {}) is None
    monkeypatch.setattr(held_out_labels, "MAX_PROPAGATED", len(rows) - 1)
    assert predict_held_out_labels(feed, rows, folds, propagate, L2, {}) is None


def test_sets_of_a_run_on_propagated_labels_are_made_from_all_its_labels(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the few validation images alone; the record and the weights stay those of the run."""
    monkeypatch.setattr(choose, "count_required_errors", lambda agreement: -np.inf)
    settings = config(shots=3, unlabelled="rest")
    run = train(settings)
    with monkeypatch.context() as patch:
        patch.setattr(held_out_labels, "MIN_HELD_OUT", 1000)
        before = train(replace(settings))
    assert run.uncertainty
    assert before.uncertainty
    drawn = run.result["unlabelled"]["object"]["labelled"]
    assert run.uncertainty.method.startswith("cross-conformal")
    assert before.uncertainty.method.startswith("split-conformal")
    assert len(run.uncertainty.sets["object"].scores) == drawn > len(before.uncertainty.sets["object"].scores)
    assert run.result["unlabelled"] == before.result["unlabelled"]
    first, second = copy_state(run.models[""]), copy_state(before.models[""])
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
