"""The label-efficiency study: records, timed runs, refused options."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import label_efficiency as module
from studies.label_efficiency import LabelEfficiencyConfig, Stopwatch, run_label_efficiency

from transfer.errors import TransferError
from transfer.training.train import train


def small(config: Any, **settings: Any) -> LabelEfficiencyConfig:
    study = {name: settings.pop(name) for name in ("label_counts", "policies") if name in settings}
    given = {
        "label_counts": (0, 2),
        "policies": ("linear_probe", "partial"),
        "scratch_lr": 0.02,
        "scratch_epochs": 2,
    } | study
    return LabelEfficiencyConfig(config(epochs=1, refit=False, patience=0, **settings), **given)


def test_a_record_of_every_run(config: Any, tmp_path: Any) -> None:
    study = small(config, seeds=(0, 1), out=tmp_path / "run")
    result = run_label_efficiency(study)
    runs = result["runs"]
    keys = [(run["labels"], run["policy"], run["seed"]) for run in runs]
    policies = ("scratch", "linear_probe", "partial:2")
    assert keys == [(labels, policy, seed) for labels in (2, 0) for policy in policies for seed in (0, 1)]
    # Of 48 images in 6 cells a fifth is for testing; of all, or of 2 in each cell, the rest is what there is to learn.
    assert {run["labels"]: run["images"] for run in runs} == {2: 12, 0: 38}
    for run in runs:
        assert run["course"]["seconds"] == sorted(run["course"]["seconds"])
        assert len(run["course"]["object"]) == (2 if run["policy"] == "scratch" else 1)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result))

    # Each is what `train` gives, scratch with its own rate and epochs.
    base = replace(study.train, run=replace(study.train.run, out=None, seeds=(), seed=1))
    for policy, learn in (("scratch", {"lr": 0.02, "epochs": 2}), ("partial:2", {})):
        run_config = replace(base, policy=replace(base.policy, policy=policy), learn=replace(base.learn, **learn))
        lines: list[dict[str, Any]] = []
        alone = train(run_config, on_epoch=lines.append).result
        found = next(r for r in runs if (r["labels"], r["policy"], r["seed"]) == (0, policy, 1))
        assert found["object"] == alone["test"]["object"]["accuracy"]
        assert found["course"]["object"] == [line["val"]["object"] for line in lines]


def test_a_truncated_network_from_scratch_has_the_rate_of_scratch(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {}

    def watched(run_config: Any, **more: Any) -> Any:
        rates[run_config.policy.policy] = run_config.learn.lr
        return train(run_config, **more)

    monkeypatch.setattr(module, "train", watched)
    run_label_efficiency(small(config, label_counts=(2,), policies=("truncate:2+scratch", "truncate:2"), lr=0.003))
    assert rates == {"scratch": 0.02, "truncate:2+scratch": 0.02, "truncate:2": 0.003}


@pytest.mark.parametrize("cache", [True, False])
def test_timed_runs_reuse_no_frozen_features(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: bool
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))  # what other tests have computed lies elsewhere
    computed = []

    def watched(run_config: Any, **more: Any) -> Any:
        run = train(run_config, **more)
        computed.append((run_config.data.shots, run.result["seconds"]["trunk"] > 0))
        return run

    monkeypatch.setattr(module, "train", watched)
    run_label_efficiency(small(config, label_counts=(2, 3), policies=("linear_probe",), seeds=(7, 7), cache=cache))
    assert [shots for shots, _ in computed] == [2, 2, 2, 2, 3, 3, 3, 3]
    _, _, *shared, _, _, third, fourth = [seconds for _, seconds in computed]
    assert [*shared, third, fourth] == ([True, False, True, True] if cache else [False] * 4)


def test_policies_run_once(config: Any) -> None:
    runs = run_label_efficiency(small(config, label_counts=(1, 1), policies=("partial", "partial:2", "scratch")))[
        "runs"
    ]
    assert [run["policy"] for run in runs] == ["scratch", "partial:2"]
    assert [run["course"] for run in runs] == [{"seconds": [], "object": []}] * 2  # one label leaves none to validate


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 3}, "--label-counts A,B not --shots"),
        ({"policy": "full"}, "--policies A,B not --policy"),
        ({"policies": ("probe",)}, "unknown policy 'probe'"),
        ({"test": 0.0}, "no test images"),
        ({"label_counts": (-1, 5)}, "--label-counts -1: it must be 0 or more"),
    ],
)
def test_what_is_refused(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TransferError, match=message):
        run_label_efficiency(small(config, **settings))


def test_stopwatch_takes_validated_epochs_and_solutions() -> None:
    times = iter([10.0, 11.0, 13.0, 16.5])
    watch = Stopwatch("domain", clock=lambda: next(times))
    watch({"phase": "heads", "head": "domain", "strength": 0.1, "loss": 1.0, "val": {"domain": 0.9}})
    watch({"phase": "heads", "solved": {"domain": 0.1}, "val": {"object": 0.1, "domain": 0.5}})
    watch({"phase": "top 1", "epoch": 1, "val": {"object": 0.2, "domain": 0.75}})
    watch({"phase": "top 1", "epoch": 2})  # not validated
    watch({"phase": "top 1", "epoch": 3, "val": {"object": 0.2}})  # not for this head
    watch({"phase": "top 1", "epoch": 4, "val": {"domain": 0.625}})
    assert watch.points == {1.0: 0.5, 3.0: 0.75, 6.5: 0.625}
