import json
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from saved_runs import read_run

from transfer.adaptation import adapt as adapt_module
from transfer.adaptation.adapt import adapt
from transfer.adaptation.losses.fixmatch import FixMatch
from transfer.adaptation.registry import METHODS
from transfer.adaptation.resume import ResumeLog
from transfer.adaptation.step_loss import StepLoss
from transfer.cli import main
from transfer.errors import TransferError
from transfer.runs import states
from transfer.runs.folder import RunFolder
from transfer.runs.states import PartStates, RunStates
from transfer.runtime import signals
from transfer.runtime.signals import StoppedBySignal

COMPARISON = "transfer.adaptation.selection.source_comparison.SourceComparison"
TRULY = signals.stop_requested


def resumed(config: Any) -> Any:
    return replace(config, run=replace(config.run, resume=True))


@pytest.fixture
def stop_at(monkeypatch):
    """Ask to stop where a run looks for the `number`-th time whether it shall (0: never)."""

    def stop(number):
        looked = 0

        def asked():
            nonlocal looked
            looked += 1
            if looked == number:
                signals._received.append(signal.SIGTERM)
            return TRULY()

        monkeypatch.setattr(signals, "stop_requested", asked)

    return stop


def in_pieces(config, tiny, stop_at, each):
    """Run, being stopped every `each` looks; return how often."""
    for stops in range(60):
        stop_at(each)
        try:
            adapt(resumed(config), images=tiny)
        except StoppedBySignal:
            continue
        return stops
    raise AssertionError("it does not get on")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("methods", "how"),
    [
        (("source_only", "dann"), {"policy": "partial:1"}),
        (("shot",), {"policy": "partial:1", "protocol": "inductive"}),
        pytest.param(("fixmatch", "mcd"), {}, marks=SLOW),
        pytest.param(("cdan_e",), {"policy": "partial:1", "weight": (0.5, 2.0)}, marks=SLOW),
        pytest.param(("growing", "adabn"), {"policy": "partial:1"}, marks=SLOW),
        pytest.param(("mme", "adda"), {"target_labels": 2, "policy": "partial:1", "cache": False}, marks=SLOW),
        pytest.param(("auto",), {"policy": "partial:1"}, marks=SLOW),
        pytest.param(("auto", "shot"), {"rule": "source_val", "val": 0.3}, marks=SLOW),
    ],
)
def test_a_run_stopped_again_and_again_comes_to_the_same_bits(
    config, tiny, tmp_path, stop_at, monkeypatch, methods, how
):
    """In the midst of epochs, at their ends, and after calls of learn."""
    monkeypatch.setattr(f"{COMPARISON}.convincing", True)  # so every step of auto is taken
    unsure = replace(METHODS["fixmatch"], losses=lambda *_: [(1.0, FixMatch(0.0))])  # dropout shows in every step
    monkeypatch.setitem(METHODS, "fixmatch", unsure)
    settings = {"method": methods, "epochs": 3, "steps": 2} | how
    adapt(config(out=tmp_path / "whole", **settings), images=tiny)
    stops = in_pieces(config(out=tmp_path / "pieces", **settings), tiny, stop_at, 4)
    assert stops >= 2
    assert read_run(tmp_path / "pieces") == read_run(tmp_path / "whole")
    assert not (tmp_path / "pieces" / "states").exists()


class Killed(Exception):
    """Stands for a process that ends where nothing is saved."""


def killing(number):
    """Return a function that raises in the `number`-th call, whatever it gets."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed

    return call


@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_a_killed_run_goes_on_from_its_last_state_and_writes_no_line_twice(
    config, tiny, tmp_path, monkeypatch, minutes
):
    settings = {"method": ("mcc",), "policy": "partial:1", "epochs": 3, "steps": 2}
    adapt(config(out=tmp_path / "whole", **settings), images=tiny)
    killed = config(out=tmp_path / "killed", checkpoint_minutes=minutes, **settings)
    monkeypatch.setattr(PartStates, "cheap", True)
    save = PartStates.save
    with monkeypatch.context() as patch:  # the second epoch's line is written, its state is not
        die = killing(3 if minutes else 7)
        patch.setattr(PartStates, "save", lambda part, value: (die(), save(part, value)))
        with pytest.raises(Killed):
            adapt(killed, images=tiny)
    assert (tmp_path / "killed" / "metrics.jsonl").read_text().count("\n") == 2
    (file,) = (tmp_path / "killed" / "states").glob("0.2.safetensors" if minutes else "0.6.safetensors")
    place = states.read_state(file)["calls"][-1]["place"]
    assert (place["epoch"], place["step"]) == ((1, 0) if minutes else (1, 2))
    adapt(resumed(killed), images=tiny)
    assert read_run(tmp_path / "killed") == read_run(tmp_path / "whole")


def test_finished_seeds_are_not_run_again(config, tiny, tmp_path, monkeypatch):
    settings = {"method": ("mcc", "coral"), "seeds": (0, 3, 4)}
    whole = adapt(config(out=tmp_path / "whole", **settings), images=tiny)
    made = config(out=tmp_path / "killed", **settings)
    die, result, once, ran = killing(2), RunFolder.write_result, adapt_module._adapt_seed, []
    with monkeypatch.context() as patch:  # all of the second seed is there but its result
        patch.setattr(RunFolder, "write_result", lambda folder, value: (die(), result(folder, value)))
        with pytest.raises(Killed):
            adapt(made, images=tiny)
    monkeypatch.setattr(
        adapt_module, "_adapt_seed", lambda one, *rest: (ran.append(one.config.run.seed), once(one, *rest))[1]
    )
    again = adapt(resumed(made), images=tiny)
    assert ran == [3, 4]
    assert read_run(tmp_path / "killed") == read_run(tmp_path / "whole")
    for one, other in zip(again.before, whole.before, strict=True):
        assert np.array_equal(one, other)
    for (table, said), (other_table, other) in zip(again.tests, whole.tests, strict=True):
        assert np.array_equal(table.object, other_table.object)
        assert np.array_equal(said["object"], other["object"])


def test_a_finished_run_gives_its_result_and_another_config_is_refused(config, tiny, tmp_path, monkeypatch):
    made = resumed(config(method=("mcc",), out=tmp_path / "run"))
    first = adapt(made, images=tiny)
    monkeypatch.setattr(adapt_module, "_adapt_seed", None)
    again = adapt(made, images=tiny)
    assert again.result == json.loads((tmp_path / "run" / "result.json").read_text()) == first.result
    one, other = (some.models[""].state_dict() for some in (first, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(TransferError, match="another method"):
        adapt(resumed(config(method=("coral",), out=tmp_path / "run")), images=tiny)


def test_a_signal_ends_the_command_with_its_code_after_saving(config, tiny, tmp_path, monkeypatch, capfd):
    made = config(method=("mcc",), policy="partial:1", out=tmp_path / "run")
    loss, calls = StepLoss.forward, []

    def signalled(*args):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return loss(*args)

    monkeypatch.setattr(StepLoss, "forward", signalled)
    assert main._guarded(lambda _: adapt(made, images=tiny)) == 143
    assert len(calls) == 2  # that step was done
    last = capfd.readouterr().err.splitlines()[-1]
    assert "SIGTERM" in last
    assert "--resume" in last
    kept = RunStates(tmp_path / "run", 10).part(0).load()
    assert kept["calls"][-1]["place"]["step"] == 2


def test_what_is_over_is_kept_as_it_was(tmp_path, monkeypatch):
    """Learning goes on in the tensors that a call ends with."""
    monkeypatch.setattr(PartStates, "cheap", True)
    weight = torch.ones(2)
    one = ResumeLog(RunStates(tmp_path, 10).part(0))
    assert one.open(lambda: {"best": 1}) is None
    assert one.enter() is None
    one.leave(lambda: {"end": weight, "said": []})
    weight.zero_()
    assert one.enter() is None
    one.after_step(lambda: pytest.fail("no state is due"))
    one.after_epoch(lambda: {"place": 7})

    other = ResumeLog(RunStates(tmp_path, 10).part(0))
    assert other.open(dict) == {"best": 1}
    assert torch.equal(other.enter()["end"], torch.ones(2))
    assert other.enter() == {"place": 7}
    assert other.enter() is None
    other.finish_weight(2)
    assert not other.part.outcome()
    other.finish_weight(2)

    third = ResumeLog(RunStates(tmp_path, 10).part(0))
    third.open(dict)
    assert (third.weight, third.enter()) == (2, None)


def test_without_states_nothing_is_kept():
    one = ResumeLog()
    assert one.open(lambda: pytest.fail("no use")) is None
    for call in (one.after_step, one.after_epoch, one.leave):
        call(lambda: pytest.fail("no use"))
    one.finish_weight(1)
