import json

import numpy as np
import pytest

from transfer.config.train import CompareConfig
from transfer.errors import TransferError
from transfer.evaluation.paired import paired_test
from transfer.training import fit_networks as module
from transfer.training.compare import choose_by_validation, compare, compare_runs
from transfer.training.fit import fit
from transfer.training.train import train


def test_policies_are_compared_on_the_same_images(config, tmp_path):
    result = compare(
        CompareConfig(config(out=tmp_path / "runs", epochs=1, seeds=(0, 1)), ("linear_probe", "partial:1"))
    )
    assert list(result["runs"]) == ["linear_probe", "partial:1"]
    assert list(result["paired"]) == ["partial:1"]
    scores = {
        name: np.mean([[*seed["validation"].values()] for seed in run["seeds"]]) for name, run in result["runs"].items()
    }
    assert result["best"] == max(scores, key=scores.get)
    a, b = (result["runs"][name]["test"]["object"]["accuracy"] for name in ("partial:1", "linear_probe"))
    assert result["paired"]["partial:1"]["object"]["difference"] == pytest.approx(a - b, abs=1e-9)
    assert json.loads((tmp_path / "runs" / "result.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / "runs" / "partial-1" / "seed1" / "model.safetensors").is_file()


def test_a_comparison_goes_on_with_what_is_missing(config, tmp_path, monkeypatch):
    settings = {"epochs": 1, "seeds": (0, 1)}
    policies = ("linear_probe", "partial:1")
    whole = compare(CompareConfig(config(out=tmp_path / "whole", **settings), policies))
    fits = []

    def dying(model, plan, *args, **how):
        fits.append(str(plan.policy))
        if len(fits) == 6:  # two of linear_probe's four are refits
            raise KeyboardInterrupt
        return fit(model, plan, *args, **how)

    monkeypatch.setattr(module, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        compare(CompareConfig(config(out=tmp_path / "killed", **settings), policies))
    again = compare(CompareConfig(config(out=tmp_path / "killed", resume=True, **settings), policies))
    assert fits == ["linear_probe"] * 4 + ["partial:1"] * 3
    assert again["paired"] == whole["paired"]
    assert [run["test"] for run in again["runs"].values()] == [run["test"] for run in whole["runs"].values()]


def test_the_best_policy_is_that_of_the_validation_images():
    low, high = {"validation": {"object": 0.9, "domain": 0.5}}, {"validation": {"object": 0.8, "domain": 0.7}}
    assert choose_by_validation({"a": low, "b": high}) == "b"
    assert choose_by_validation({"a": low, "b": low}) == "a"
    assert choose_by_validation({"a": {"seeds": [high, high]}, "b": {"seeds": [high, low]}}) == "a"
    assert choose_by_validation({"a": low, "b": {"validation": {}}}) is None


def test_paired_counts_an_image_once_however_many_seeds_saw_it(config):
    one, other = (train(config(policy=policy, epochs=1, seeds=(0, 1, 2))) for policy in ("full", "linear_probe"))
    right, images = [], []
    for run in (one, other):
        rows = [(a["object"].argmax(1) == t.object) for t, a in run.tests]
        right.append(np.concatenate(rows))
        images = np.concatenate([t.paths for t, _ in run.tests])
    assert compare_runs(one, other)["object"] == paired_test(right[0], right[1], images)
    assert compare_runs(one, other)["object"]["images"] == len(set(images)) < len(images)


def test_an_unknown_policy_is_refused_before_anything_runs(config, tmp_path):
    with pytest.raises(TransferError, match=r"unknown policy 'partal'.*'partial'"):
        compare(CompareConfig(config(out=tmp_path / "runs"), ("linear_probe", "partal")))
    assert not (tmp_path / "runs").exists()


def test_policy_beside_policies_is_refused(config):
    with pytest.raises(TransferError, match="--policies"):
        compare(CompareConfig(config(policy="full")))


def test_policies_share_the_minutes(config, monkeypatch):
    """Each gets an equal share of the time that is left when it begins."""
    given = []

    def recorded(config, *, limit, **how):
        assert config.learn.minutes is None
        given.append(limit.left)
        return train(config, limit=limit, **how)

    monkeypatch.setattr("transfer.training.compare.train", recorded)
    result = compare(CompareConfig(config(epochs=1, minutes=9.0), ("linear_probe", "partial:1", "full")))
    assert 170 < given[0] <= 180
    assert 250 < given[1] <= 270
    assert 400 < given[2] <= 540
    assert result["config"]["train"]["learn"]["minutes"] == 9
