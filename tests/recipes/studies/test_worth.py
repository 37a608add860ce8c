"""What is trained for the comparison of transfer with scratch: the records, what is timed, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from studies import worth as module
from studies.worth import Stopwatch, worth

from transfer.config.commands import WorthConfig
from transfer.errors import TransferError
from transfer.training.train import train


def small(config: Any, **settings: Any) -> WorthConfig:
    own = {name: settings.pop(name) for name in ("labels", "policies") if name in settings}
    given = {"labels": (0, 2), "policies": ("linear_probe", "partial"), "scratch_lr": 0.02, "scratch_epochs": 2} | own
    return WorthConfig(config(epochs=1, refit=False, patience=0, **settings), **given)


def test_a_record_of_every_run(config: Any, tmp_path: Any) -> None:
    asked = small(config, seeds=(0, 1), out=tmp_path / "run")
    result = worth(asked)
    runs = result["runs"]
    told = [(run["labels"], run["policy"], run["seed"]) for run in runs]
    policies = ("scratch", "linear_probe", "partial:2")
    assert told == [(few, policy, seed) for few in (2, 0) for policy in policies for seed in (0, 1)]
    # Of 48 images in 6 cells a fifth is for testing; of all, or of 2 in each cell, the rest is what there is to learn.
    assert {run["labels"]: run["images"] for run in runs} == {2: 12, 0: 38}
    for run in runs:
        assert run["course"]["seconds"] == sorted(run["course"]["seconds"])
        assert len(run["course"]["object"]) == (2 if run["policy"] == "scratch" else 1)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result))

    # Each is what `train` gives, scratch with its own rate and epochs.
    base = replace(asked.train, run=replace(asked.train.run, out=None, seeds=(), seed=1))
    for policy, learn in (("scratch", {"lr": 0.02, "epochs": 2}), ("partial:2", {})):
        one = replace(base, policy=replace(base.policy, policy=policy), learn=replace(base.learn, **learn))
        lines: list[dict[str, Any]] = []
        alone = train(one, on_epoch=lines.append).result
        found = next(r for r in runs if (r["labels"], r["policy"], r["seed"]) == (0, policy, 1))
        assert found["object"] == alone["test"]["object"]["accuracy"]
        assert found["course"]["object"] == [line["val"]["object"] for line in lines]


def test_a_truncated_network_from_scratch_has_the_rate_of_scratch(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {}

    def watched(one: Any, **more: Any) -> Any:
        rates[one.policy.policy] = one.learn.lr
        return train(one, **more)

    monkeypatch.setattr(module, "train", watched)
    worth(small(config, labels=(2,), policies=("truncate:2+scratch", "truncate:2"), lr=0.003))
    assert rates == {"scratch": 0.02, "truncate:2+scratch": 0.02, "truncate:2": 0.003}


@pytest.mark.parametrize("cache", [True, False])
def test_timed_runs_find_no_trunk_computed_before(
    config: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: bool
) -> None:
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path))  # what other tests have computed lies elsewhere
    computed = []

    def watched(one: Any, **more: Any) -> Any:
        run = train(one, **more)
        computed.append((one.data.shots, run.result["seconds"]["trunk"] > 0))
        return run

    monkeypatch.setattr(module, "train", watched)
    worth(small(config, labels=(2, 3), policies=("linear_probe",), seeds=(7, 7), cache=cache))
    assert [shots for shots, _ in computed] == [2, 2, 2, 2, 3, 3, 3, 3]
    _, _, *shared, _, _, third, fourth = [here for _, here in computed]
    assert [*shared, third, fourth] == ([True, False, True, True] if cache else [False] * 4)


def test_policies_are_told_once(config: Any) -> None:
    runs = worth(small(config, labels=(1, 1), policies=("partial", "partial:2", "scratch")))["runs"]
    assert [run["policy"] for run in runs] == ["scratch", "partial:2"]
    assert [run["course"] for run in runs] == [{"seconds": [], "object": []}] * 2  # one label leaves none to validate


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 3}, "--labels A,B not --shots"),
        ({"policy": "full"}, "--policies A,B not --policy"),
        ({"policies": ("probe",)}, "unknown policy 'probe'"),
        ({"test": 0.0}, "no test images"),
        ({"labels": (-1, 5)}, "--labels -1: it must be 0 or more"),
    ],
)
def test_what_is_refused(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TransferError, match=message):
        worth(small(config, **settings))


def test_stopwatch_takes_validated_epochs_and_solutions() -> None:
    times = iter([10.0, 11.0, 13.0, 16.5])
    watch = Stopwatch("domain", clock=lambda: next(times))
    watch({"phase": "heads", "head": "domain", "strength": 0.1, "loss": 1.0, "val": {"domain": 0.9}})
    watch({"phase": "heads", "solved": {"domain": 0.1}, "val": {"object": 0.1, "domain": 0.5}})
    watch({"phase": "top 1", "epoch": 1, "val": {"object": 0.2, "domain": 0.75}})
    watch({"phase": "top 1", "epoch": 2})  # nothing to validate on
    watch({"phase": "top 1", "epoch": 3, "val": {"object": 0.2}})  # nor of this head
    watch({"phase": "top 1", "epoch": 4, "val": {"domain": 0.625}})
    assert watch.points == {1.0: 0.5, 3.0: 0.75, 6.5: 0.625}
