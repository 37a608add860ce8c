import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.errors import TransferError
from transfer.runs import states as module
from transfer.runs.states import DamagedState, RunStates, read_state, write_state


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    part = RunStates(tmp_path, 10).part(0)
    assert part.load() is None
    for step in range(5):
        part.save({"step": step, "weights": torch.full((3,), float(step))})
    assert names(tmp_path / "states") == ["0.4.safetensors", "0.5.safetensors"]
    again = RunStates(tmp_path, 10).part(0)
    kept = again.load()
    assert kept["step"] == 4
    assert torch.equal(kept["weights"], torch.full((3,), 4.0))
    again.save({"step": 5})
    assert names(tmp_path / "states") == ["0.5.safetensors", "0.6.safetensors"]


@pytest.mark.parametrize("harm", ["cut", "empty", "flipped", "other"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    part = RunStates(tmp_path, 10).part(0)
    for step in range(3):
        part.save({"step": step, "weights": torch.ones(100)})
    file = tmp_path / "states" / "0.3.safetensors"
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes({"cut": content[:-7], "empty": b"", "flipped": content, "other": b"{}" * 99}[harm])
    assert part.load()["step"] == 1
    assert "resuming from the previous one" in caplog.text
    part.save({"step": 2})
    assert part.load()["step"] == 2
    for file in (tmp_path / "states").iterdir():
        file.write_bytes(b"nothing")
    assert part.load() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unseen(tmp_path: Path, at: int, bit: int) -> None:
    file = tmp_path / "x.safetensors"
    value = {"a": torch.arange(40), "b": [1, 2.5, "c"], "d": torch.tensor(True)}
    write_state(file, value)
    content = bytearray(file.read_bytes())
    content[at % len(content)] ^= 1 << bit
    file.write_bytes(content)
    with contextlib.suppress(DamagedState):
        assert repr(read_state(file)) == repr(value)  # a space of the header's, say


def test_what_came_of_a_part_takes_the_place_of_its_states(tmp_path: Path) -> None:
    states = RunStates(tmp_path, 10)
    first, second = states.part(0), states.part(1)
    first.save(1)
    second.save(2)
    assert first.outcome() is None
    first.finish({"done": True})
    assert names(tmp_path / "states") == ["0.done.safetensors", "1.1.safetensors"]
    assert RunStates(tmp_path, 10).part(0).outcome() == {"done": True}
    assert first.load() is None
    (tmp_path / "states" / "0.done.safetensors").write_bytes(b"half")
    assert first.outcome() is None


def test_when_one_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    part = RunStates(tmp_path, 2).part(0)
    assert part.cheap
    assert not part.due
    now[0] += 121
    assert part.due
    write_all, cost = module.write_state, 1.5

    def slow(path: Path, value: object) -> None:
        write_all(path, value)
        now[0] += cost

    monkeypatch.setattr(module, "write_state", slow)
    part.save(1)
    assert not part.due
    assert not part.cheap
    now[0] += 29
    assert not part.cheap
    now[0] += 1
    assert part.cheap
    assert RunStates(tmp_path, 0).part(1).due


def test_what_cannot_be_written_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = RunStates(tmp_path, 10).part(0)
    part.save(1)
    part.save(2)

    def full(*args: object, **kwargs: object) -> None:
        raise module.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(TransferError, match="No space left on device"):
            part.save(3)
    assert names(tmp_path / "states") == ["0.1.safetensors", "0.2.safetensors"]
    assert part.load() == 2


def test_a_state_of_another_version_is_not_resumed(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr("transfer.runs.states.STATE_VERSION", "1")
        states = RunStates(tmp_path, 10)
        states.of(SimpleNamespace(now={"images": 3}, check=lambda before: None))
        states.part(0).save({"step": 7})
    states = RunStates(tmp_path, 10)
    states.of(SimpleNamespace(now={"images": 4}, check=lambda before: pytest.fail("cannot be compared")))
    assert states.part(0).load() is None
    assert "written by another version of transfer" in caplog.text
    states.part(0).save({"step": 1})
    assert read_state(tmp_path / "states" / "run.safetensors") == {"images": 4}
