"""Gradients of one row at a time, added up in plain loops; and that to measure them changes nothing."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from transfer.config.train import LearnConfig
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel
from transfer.training.diagnosis.gradient_conflict import conflict_by_epoch, measure_conflict
from transfer.training.epoch import TrainingData
from transfer.training.fit import fit
from transfer.training.train import train

QUICK = LearnConfig(epochs=3, batch_size=8, workers=1, lr=0.01, patience=0, device="cpu")


def frozen(taught: Callable[..., Any], policy: str = "partial:1", **options: Any) -> TransferModel:
    model, plan = taught(policy, **options)
    model.freeze(plan.phases[0])
    return model


def measured(model: TransferModel, data: TrainingData, labels: dict[str, torch.Tensor], **learn: Any) -> dict[str, Any]:
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=8, workers=1)
    return measure_conflict(model, feed, data.train, labels, dataclasses.replace(QUICK, **learn))


def row_gradients(model: TransferModel, data: TrainingData, name: str, smoothing: float) -> dict[int, np.ndarray]:
    """Return, for each training row, the gradient of minus the log of the answer to `name` that is right."""
    feed = TrunkCache().feed(model, data.table.paths, data.digests, batch_size=1, workers=1)
    shared = [p for p in model.backbone.network.parameters() if p.requires_grad]
    found = {}
    model.eval()
    for some, activation in feed.batches(data.train):
        p = model.heads.predictions(model(activation))[name][0]
        wanted = torch.full_like(p, smoothing / len(p))
        wanted[data.table.targets[name].values[some[0]]] += 1 - smoothing
        model.zero_grad(set_to_none=True)
        (-(wanted * p.log()).sum()).backward()
        found[int(some[0])] = np.concatenate([p.grad.numpy().ravel().astype(float) for p in shared])
    model.zero_grad(set_to_none=True)
    return found


def norm(v: np.ndarray) -> float:
    return math.sqrt(float((v**2).sum()))


@pytest.mark.parametrize("compose", ["dual", "joint"])
@pytest.mark.parametrize("unknown", [False, True])
def test_against_row_by_row(taught: Callable[..., Any], data: TrainingData, compose: str, unknown: bool) -> None:
    model = frozen(taught, compose=compose)
    labels = target_tensors(data.table, model)
    if unknown:
        labels["domain"] = labels["domain"].clone()
        labels["domain"][::3] = -1
    found = measured(model, data, labels, label_smoothing=0.1)
    each = {name: row_gradients(model, data, name, 0.1) for name in ("object", "domain")}
    order = np.random.default_rng(0).permutation(data.train)

    def mean(name: str, rows: np.ndarray) -> np.ndarray:
        return np.mean([each[name][row] for row in rows if labels[name][row] >= 0], axis=0)

    one, other = (mean(name, order) for name in ("object", "domain"))
    cosine = float(one @ other) / norm(one) / norm(other)
    assert found["cosine"]["object domain"] == pytest.approx(cosine, abs=1e-4)
    assert found["length"] == pytest.approx({"object": norm(one), "domain": norm(other)}, rel=1e-3)
    batches = [order[start : start + 8] for start in range(0, len(order), 8)]
    conflict = np.mean([mean("object", rows) @ mean("domain", rows) < 0 for rows in batches])
    assert found["conflict"]["object domain"] == pytest.approx(float(conflict), abs=1e-6)


def test_heads_that_want_the_same_agree(taught: Callable[..., Any], data: TrainingData) -> None:
    """A second head with the first one's layer and labels; at half the weight it pulls half as hard."""
    model = frozen(taught, heads=("object",))
    heads = model.heads
    heads.specs["copy"] = dataclasses.replace(heads.specs["object"], name="copy", weight=0.5)
    heads.layers["head_copy"] = heads.layers["head_object"]
    labels = target_tensors(data.table, frozen(taught, heads=("object",)))
    found = measured(model, data, labels | {"copy": labels["object"]})
    assert found["cosine"] == {"object copy": pytest.approx(1.0, abs=1e-5)}
    assert found["conflict"] == {"object copy": 0.0}
    assert found["length"]["copy"] == pytest.approx(found["length"]["object"] / 2, rel=1e-5)


def test_three_heads_are_three_pairs(taught: Callable[..., Any], data: TrainingData) -> None:
    model = frozen(taught)
    extra = dataclasses.replace(model.heads.specs["domain"], name="age", kind="regression", classes=())
    model.heads.specs["age"] = extra
    model.heads.layers["head_age"] = torch.nn.Linear(model.backbone.width, 1)
    ages = torch.linspace(0, 1, len(data.table))
    ages[::5] = torch.nan
    labels = {name: torch.from_numpy(data.table.targets[name].values) for name in ("object", "domain")}
    found = measured(model, data, labels | {"age": ages})
    assert set(found["cosine"]) == {"object domain", "object age", "domain age"}
    assert all(math.isfinite(value) and -1 <= value <= 1 for value in found["cosine"].values())


def test_where_nothing_is_shared_there_is_nothing_to_tell(taught: Callable[..., Any], data: TrainingData) -> None:
    for model in (frozen(taught, "linear_probe"), frozen(taught, heads=("object",))):
        assert measured(model, data, target_tensors(data.table, model)) == {}
    model = frozen(taught)
    model.heads.specs["domain"] = dataclasses.replace(model.heads.specs["domain"], weight=0.0)
    assert measured(model, data, target_tensors(data.table, model)) == {}


@pytest.mark.parametrize("policy", ["partial:1", "full"])
def test_to_measure_it_changes_nothing(taught: Callable[..., Any], data: TrainingData, policy: str) -> None:
    ends = []
    for wanted in (False, True):
        model, plan = taught(policy)
        lines = fit(model, plan, data, dataclasses.replace(QUICK, interference=wanted), TrunkCache()).epochs
        assert [("interference" in line) for line in lines] == [wanted] * 3
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_run_tells_it_in_every_line(config: Callable[..., Any]) -> None:
    lines: list[dict[str, Any]] = []
    train(config(policy="partial:1", interference=True, seeds=(0, 1)), on_epoch=lines.append)
    found = conflict_by_epoch(lines)
    assert {name: len(values) for name, values in found.items()} == {"cosine": 3, "conflict": 3, "ratio": 3}
    seconds = [line["interference"] for line in lines if line["epoch"] == 2]
    assert len(seconds) == 2
    assert found["cosine"][1] == pytest.approx(sum(one["cosine"]["object domain"] for one in seconds) / 2)
    ratios = [one["length"]["domain"] / one["length"]["object"] for one in seconds]
    assert found["ratio"][1] == pytest.approx(sum(ratios) / 2)
    lines.clear()
    train(config(policy="partial:1", interference=True, heads="separate"), on_epoch=lines.append)
    assert lines
    assert conflict_by_epoch(lines) == {"cosine": [], "conflict": [], "ratio": []}


def test_a_head_without_weight_leaves_the_backbone_alone(taught: Callable[..., Any], data: TrainingData) -> None:
    """Which ends as without that head, bit by bit."""
    ends = []
    for heads in (("object",), ("object", "domain")):
        model, plan = taught("partial:2", heads=heads)
        if "domain" in heads:
            model.heads.specs["domain"] = dataclasses.replace(model.heads.specs["domain"], weight=0.0)
        unclipped = dataclasses.replace(QUICK, clip=0.0)  # a norm is rounded by how many numbers it sums
        fit(model, plan, dataclasses.replace(data, val=data.val[:0]), unclipped, TrunkCache())
        ends.append(model.backbone.network.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize(("weight", "best"), [(0.0, 2), (1.0, 3)])
def test_a_head_without_weight_does_not_choose_the_epoch(
    taught: Callable[..., Any], data: TrainingData, monkeypatch: pytest.MonkeyPatch, weight: float, best: int
) -> None:
    scripted = iter([(0.5, 0.2), (0.9, 0.1), (0.6, 1.0)])

    def judge(*args: Any, **options: Any) -> dict[str, Any]:
        return {name: {"accuracy": a} for name, a in zip(("object", "domain"), next(scripted), strict=True)}

    monkeypatch.setattr("transfer.training.fit.evaluate_predictions", judge)
    model, plan = taught("partial:1")
    model.heads.specs["domain"] = dataclasses.replace(model.heads.specs["domain"], weight=weight)
    assert fit(model, plan, data, QUICK, TrunkCache()).best == [best]
