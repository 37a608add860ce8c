"""A fit that is stopped or killed anywhere goes on to the same bits."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_states import copy_state
from saved_runs import epoch_lines, read_run
from torch import Tensor

from transfer.config.train import LearnConfig, RegulariseConfig, TrainConfig
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.runs.states import PartStates, RunStates
from transfer.runtime import signals
from transfer.runtime.signals import StoppedBySignal, defer_stop_signals
from transfer.training import fit_networks
from transfer.training.epoch import EpochProgress, TrainingData
from transfer.training.fit import FitResult, fit
from transfer.training.resume import FitCheckpoints, FitPosition
from transfer.training.train import train

QUICK = LearnConfig(probe="trained", epochs=2, batch_size=12, workers=1, lr=3e-3, label_smoothing=0.0)
SETTINGS: dict[str, tuple[str, LearnConfig]] = {
    "probe": ("linear_probe", replace(QUICK, balance="sampling")),
    "partial, views": ("partial:1", replace(QUICK, augment="crop", balance="loss", optimizer="sgd")),
    "full, fresh views, swa": ("full", replace(QUICK, augment="colour", average="swa", epochs=3)),
    "ema, mixup": ("partial:1", replace(QUICK, average="ema", regularise=RegulariseConfig(mixup=0.4, bss=0.01))),
    "cutmix, depth": ("full", replace(QUICK, regularise=RegulariseConfig(cutmix=1.0, stochastic_depth=0.5))),
    "l2-sp, delta": ("partial:1", replace(QUICK, regularise=RegulariseConfig(l2_sp=0.1, delta=0.01))),
    "lp-ft, solved": ("lp_ft:1", replace(QUICK, probe="solved", epochs=4)),
    "gradual": ("gradual:2", replace(QUICK, epochs=4, optimizer="lookahead_adam")),
    "cycles": ("partial:1", replace(QUICK, epochs=4, cycles=2)),
    "patience": ("linear_probe", replace(QUICK, epochs=8, patience=1, lr=0.3)),
    "wise_ft": ("lp_ft:1", replace(QUICK, average="wise_ft", probe="solved", lr=0.05)),
    "norms": ("norm_only", replace(QUICK, optimizer="rmsprop")),
    "lbfgs": ("linear_probe", replace(QUICK, optimizer="lbfgs", batch_size=0, epochs=4)),
    "clip, step": ("surgical:last", replace(QUICK, schedule="step", clip=0.1, interference=True)),
}
RANDOM = {"partial, views", "full, fresh views, swa", "probe", "gradual"}  # with dropout in the heads, too


class Killed(BaseException):
    """As SIGKILL: nothing is saved."""


def at_step(patch: pytest.MonkeyPatch, number: int, how: str) -> list[int]:
    """Kill or stop the process after its step (or end of an epoch) of this number, from 1; return the count."""
    step, count = FitCheckpoints.step, [0]

    def counted(self: FitCheckpoints, save: Callable[[], None], *, end: bool = False) -> None:
        count[0] += 1
        if count[0] == number and how == "stop":
            signals._received.append(signal.SIGTERM)
        step(self, save, end=end)
        if count[0] == number and how == "kill":
            raise Killed

    patch.setattr(FitCheckpoints, "step", counted)
    return count


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def run(taught: Callable[..., Any], data: TrainingData) -> Callable[..., Any]:
    """Fit anew, as a process that knows nothing of an earlier one; return what came of it."""

    def go(name: str, part: PartStates | None = None) -> tuple[FitResult, dict[str, Tensor], list[dict[str, Any]]]:
        policy, config = SETTINGS[name]
        model, plan = taught(policy, hidden=(8,) if name in RANDOM else ())
        for layer in model.heads.modules() if name in RANDOM else ():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.3
        torch.rand(3)  # where the generator is before makes no difference
        lines: list[dict[str, Any]] = []
        cache = TrunkCache()
        cache.views = 2 if name == "partial, views" else 0
        with defer_stop_signals():
            result = fit(model, plan, data, config, cache, seed=3, part=part, on_epoch=lines.append)
        return result, copy_state(model), epoch_lines(lines)

    return go


def check(got: Any, wanted: Any) -> None:
    assert got[2] == wanted[2]
    assert epoch_lines(got[0].epochs) == epoch_lines(wanted[0].epochs)
    assert (got[0].best, got[0].moved, got[0].stopped) == (wanted[0].best, (), wanted[0].stopped)
    assert equal(got[1], wanted[1])
    assert got[0].interpolated == wanted[0].interpolated
    assert len(got[0].snapshots) == len(wanted[0].snapshots)
    assert all(map(equal, got[0].snapshots, wanted[0].snapshots))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("how", ["stop", pytest.param("kill", marks=pytest.mark.slow)])
def test_after_any_step(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str) -> None:
    """One process for each stretch between two stops, each on another number of steps; then they all are one run."""
    with monkeypatch.context() as patch:
        count = at_step(patch, -1, how)
        wanted = run(name, RunStates(tmp_path / "whole", 10).part(0))
    minutes = 10 if how == "stop" else 0
    ends, total, stretch = 0, 0, 1
    while True:
        with monkeypatch.context() as patch:
            at_step(patch, stretch, how)
            try:
                got = run(name, RunStates(tmp_path / "parted", minutes).part(0))
                break
            except (StoppedBySignal, Killed):
                ends, total, stretch = ends + 1, total + stretch, stretch % 3 + 1
    assert ends >= 2
    assert total >= count[0] - 3
    check(got, wanted)
    again = run(name, RunStates(tmp_path / "parted", minutes).part(0))  # which is done
    check(again, wanted)


def test_states_change_nothing(run: Any, tmp_path: Path) -> None:
    for name in ("probe", "gradual"):
        check(run(name, RunStates(tmp_path / name, 0).part(0)), run(name))


def test_killed_long_after_the_last_state(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done since is done again, to the same bits."""
    wanted = run("full, fresh views, swa")
    with monkeypatch.context() as patch:
        at_step(patch, 2, "stop")
        with pytest.raises(StoppedBySignal):
            run("full, fresh views, swa", RunStates(tmp_path, 10).part(0))
        at_step(patch, 2, "kill")
        with pytest.raises(Killed):
            run("full, fresh views, swa", RunStates(tmp_path, 10).part(0))
    newest = sorted((tmp_path / "states").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-10])
    check(run("full, fresh views, swa", RunStates(tmp_path, 10).part(0)), wanted)


@pytest.mark.parametrize(("cheap", "left"), [(True, 3), (False, 6)])
def test_the_end_of_an_epoch_is_saved_where_that_is_cheap(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap: bool, left: int
) -> None:
    """Killed after the first of two steps of the second epoch, long before a state is due."""
    monkeypatch.setattr(PartStates, "cheap", cheap)
    with monkeypatch.context() as patch:
        at_step(patch, 4, "kill")
        with pytest.raises(Killed):
            run("probe", RunStates(tmp_path, 10).part(0))
    count = at_step(monkeypatch, -1, "stop")
    run("probe", RunStates(tmp_path, 10).part(0))
    assert count == [left]


WHOLE = {
    "refit": {"policy": "linear_probe", "probe": "trained"},
    "solved": {"policy": "linear_probe"},
    "separate": {"policy": "lp_ft:1", "heads": "separate", "refit": True},
    "seeds": {"policy": "partial:1", "seeds": (0, 1), "cycles": 2},
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_run(
    config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of several fits, several seeds; those that are done are not done again."""
    settings = {"batch_size": 16, "epochs": 2} | WHOLE[name]
    train(config(out=tmp_path / "whole", **settings))
    stretch = 3
    for _ in range(100):
        with monkeypatch.context() as patch:
            at_step(patch, stretch, "kill")
            try:
                train(config(out=tmp_path / "parted", resume=True, checkpoint_minutes=0, **settings))
                break
            except Killed:
                assert (tmp_path / "parted" / "states").is_dir() or name == "seeds"
    assert read_run(tmp_path / "parted") == read_run(tmp_path / "whole")

    monkeypatch.setattr(fit_networks, "fit", None)  # nothing is learned again
    again = train(config(out=tmp_path / "parted", resume=True, **settings))
    assert again.result == json.loads((tmp_path / "parted" / "result.json").read_text())
    assert set(again.models) == ({"object", "domain"} if name == "separate" else {""})
    assert len(again.tests) == len(settings.get("seeds", (0,)))


def test_on_one_device_a_resumed_run_has_the_same_bits(
    config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    settings = {"batch_size": 16, "epochs": 2, "policy": "partial:1", "average": "ema", "device": device}
    train(config(out=tmp_path / "whole", **settings))
    with monkeypatch.context() as patch:
        at_step(patch, 3, "kill")
        with pytest.raises(Killed):
            train(config(out=tmp_path / "parted", checkpoint_minutes=0, **settings))
    train(config(out=tmp_path / "parted", resume=True, **settings))
    assert read_run(tmp_path / "parted") == read_run(tmp_path / "whole")


def test_what_resume_says(config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"out": tmp_path / "run", "probe": "trained", "batch_size": 16}
    with monkeypatch.context() as patch:
        at_step(patch, 2, "stop")
        with pytest.raises(StoppedBySignal):
            train(config(**settings))
    with pytest.raises(TransferError, match="an unfinished run: resume it with --resume, or replace it"):
        train(config(**settings))
    with pytest.raises(TransferError, match="has another lr; use the options it was"):
        train(config(resume=True, lr=0.1, **settings))
    train(config(resume=True, workers=1, cache=False, checkpoint_minutes=3.0, **settings))
    assert not (tmp_path / "run" / "states").exists()
    assert not (tmp_path / "run" / ".lock").exists()
    with pytest.raises(TransferError, match="needs the folder of the run"):
        config(resume=True)
    with pytest.raises(TransferError, match="give only one of them"):
        config(resume=True, overwrite=True, out=tmp_path / "run")


def test_overwrite_begins_anew(
    config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"probe": "trained", "batch_size": 16}
    train(config(out=tmp_path / "whole", **settings))
    with monkeypatch.context() as patch:
        at_step(patch, 2, "stop")
        with pytest.raises(StoppedBySignal):
            train(config(out=tmp_path / "run", lr=0.1, **settings))
    train(config(out=tmp_path / "run", overwrite=True, **settings))
    assert read_run(tmp_path / "run") == read_run(tmp_path / "whole")


def test_a_place_moves_on() -> None:
    best = type("B", (), {"weights": {}})()
    place = FitPosition(best, best, progress=EpochProgress(step=3, total=1.0, parts=4))
    place.next_epoch()
    assert (place.epochs, place.progress) == (1, EpochProgress(parts=4))
    place.wait = 2
    place.next_phase()
    assert (place.phase, place.epochs, place.wait, place.current.value) == (1, 0, 0, (-math.inf, -math.inf))
