import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transfer.feature_cache import TrunkCache
from transfer.training.setup import read_images
from transfer.training.train import train
from transfer.tuning.trial import Halving, TrialRunner, rung_epochs, survives


def always(epoch: int, score: float) -> bool:
    return True


@pytest.fixture
def runner(config):
    made = config(probe="trained", refit=False)
    cache = TrunkCache(made.cache)
    return TrialRunner(made, read_images(made.data, cache.disk_cache), cache)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": "partial:1"},
        {"policy": "lp_ft:1"},
        {"heads": "separate"},
        {"policy": "scratch"},
        {"policy": "truncate:2+partial:1"},
    ],
    ids=str,
)
def test_a_trial_is_an_ordinary_run_judged_on_validation_images(runner, config, settings):
    """Also after others have trained the backbone that all share."""
    runner.run_trial(config(probe="trained", policy="full", lr=0.1), always)
    one = config(probe="trained", refit=False, **settings)
    found = runner.run_trial(one, always)
    lines = []
    train(one, on_epoch=lines.append)
    best = {}
    for line in lines:
        values = best.setdefault(line.get("network", ""), [])
        values.append((sum(line["val"].values()) / len(line["val"]), -line["val_loss"], line["val"]))
    expected = {}
    for values in best.values():
        expected |= max(values, key=lambda value: value[:2])[2]
    assert found["val"] == expected
    assert found["val_acc"] == pytest.approx(sum(expected.values()) / len(expected))
    assert found["stopped"] == ""
    assert found["epochs"] == max(line["epoch"] for line in lines)


def test_a_head_without_weight_does_not_judge(runner, config):
    found = runner.run_trial(config(probe="trained", refit=False, loss_weights=("domain:0",)), always)
    assert set(found["val"]) == {"object"}
    assert found["val_acc"] == found["val"]["object"]


def test_the_labels_of_test_images_are_unknown(runner):
    table, test = runner.data.table, runner.parts.test
    assert len(test)
    assert all((target.values[test] == -1).all() for target in table.targets.values())
    rest = np.setdiff1d(np.arange(len(table)), test)
    assert all((target.values[rest] >= 0).all() for target in table.targets.values())


def test_a_class_without_a_training_image_is_not_learned(config):
    made = config(probe="trained", refit=False)
    images = read_images(made.data)
    part = np.where(images.table.objects.index("red") == images.table.object, "val", "")
    part[np.flatnonzero(part == "")[::4]] = "test"
    runner = TrialRunner(made, replace(images, table=replace(images.table, split=part)), TrunkCache(made.cache))
    (specs,) = runner.networks(made.heads).values()
    assert next(spec for spec in specs if spec.name == "object").classes == ("blue", "green")
    assert not len(runner.data.val)
    assert runner.run_trial(made, always)["epochs"] >= 0


def test_a_trial_stops_when_told(runner, config):
    asked = []

    def until_two(epoch, score):
        asked.append((epoch, score))
        return epoch < 2

    found = runner.run_trial(config(probe="trained", epochs=5), until_two)
    assert [epoch for epoch, _ in asked] == [1, 2]
    assert (found["epochs"], found["stopped"]) == (2, "halving")
    assert found["val_acc"] == asked[-1][1]


def test_the_frozen_backbone_comes_back_as_it_was(runner, config):
    first = runner.run_trial(config(probe="trained"), always)
    ((backbone, start),) = runner._backbones.values()
    runner.run_trial(config(probe="trained", policy="full", lr=1.0), always)
    again = runner.run_trial(config(probe="trained"), always)
    assert {k: v for k, v in first.items() if k != "seconds"} == {k: v for k, v in again.items() if k != "seconds"}
    assert all(torch.equal(start[name], tensor) for name, tensor in backbone.network.state_dict().items())


def test_a_loss_that_is_not_finite_counts_for_nothing(runner, config):
    one = config(probe="trained", lr=1e30)
    found = runner.run_trial(replace(one, learn=replace(one.learn, optimizer="sgd", clip=0.0)), always)
    assert "the loss became" in found["stopped"]
    assert 0 <= found["val_acc"] < 1


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1), st.integers(2, 5))
def test_the_best_share_survives(others, score, keep):
    order = sorted([*others, score], reverse=True)
    kept = order[: math.ceil(len(order) / keep)]
    assert survives(score, others, keep) == (score >= kept[-1])


def test_halving_keeps_the_best_share_at_each_rung():
    """Against a plain simulation: one list of scores for each rung."""
    rng = np.random.default_rng(0)
    halving, records, seen = Halving(27, 3), [], {1: [], 3: [], 9: []}
    lengths = []
    for _ in range(300):
        quality = rng.random()
        go_on, scores = halving.watch(records)
        expected = reached = 0
        alive = True
        for epoch in range(1, 28):
            score = quality * (1 - 0.5**epoch)
            if alive:
                expected = epoch
                if epoch in seen:
                    seen[epoch].append(score)
                    best = sorted(seen[epoch], reverse=True)
                    alive = score in best[: math.ceil(len(best) / 3)]
            if not reached and not go_on(epoch, score):
                reached = epoch
            if reached or (epoch == 27 and not reached):
                break
        assert (reached or 27) == expected
        records.append({"rungs": scores})
        lengths.append(reached or 27)
    assert lengths.count(27) < 0.15 * 300
    assert lengths.count(1) > 0.5 * 300


def test_where_the_rungs_are():
    assert rung_epochs(81, 3) == [1, 3, 9, 27]
    assert rung_epochs(1, 3) == []
    assert rung_epochs(20, 2) == [1, 2, 5, 10]
    go_on, scores = Halving(9, 1).watch([{"rungs": []}])
    assert all(go_on(epoch, 0.0) for epoch in range(1, 10))
    assert scores == []
