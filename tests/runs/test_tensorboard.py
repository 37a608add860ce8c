import builtins
import importlib.util
import math

import pytest

from transfer.errors import TransferError
from transfer.runs import tensorboard as events
from transfer.runs.folder import RunFolder
from transfer.runs.tensorboard import TensorboardWriter, _numbers

LINE = {"phase": "probe", "epoch": 3, "loss": 0.5, "val": {"object": 0.75}, "flag": True}


def test_the_numbers_of_a_line():
    assert dict(_numbers(LINE)) == {"epoch": 3, "loss": 0.5, "val/object": 0.75}
    ((name, value),) = _numbers({"loss": math.nan})
    assert name == "loss"
    assert math.isnan(value)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TransferError, match=r"pip install 'transfer-toolkit\[tensorboard\]'"):
        RunFolder(tmp_path / "run", {}, later=True, tensorboard=True)
    assert not (tmp_path / "run").exists()


class Writer:
    """Stands for tensorboard's own."""

    def __init__(self, folder: str) -> None:
        self.folder, self.written = folder, []
        written.append(self)

    def add_scalar(self, name, value, step):
        self.written.append((name, value, step))

    def flush(self):
        pass


written: list[Writer] = []


def test_each_course_has_its_own_name_and_steps(tmp_path, monkeypatch):
    real = builtins.__import__
    fake = type("module", (), {"SummaryWriter": Writer})
    chosen = "torch.utils.tensorboard"
    monkeypatch.setattr(builtins, "__import__", lambda name, *a: fake if name == chosen else real(name, *a))
    monkeypatch.setattr(events.importlib.util, "find_spec", lambda name: object())
    written.clear()
    log = TensorboardWriter(tmp_path)
    log.write_line(LINE)
    for epoch in (1, 2):
        log.write_line({"candidate": f"mcc x 0.5, epoch {epoch}", "score": epoch / 4})
    log.write_line({"network": "domain", "epoch": 1, "loss": 2.0})
    (writer,) = written
    assert writer.folder == str(tmp_path)
    assert writer.written == [
        ("loss", 0.5, 3),
        ("val/object", 0.75, 3),
        ("mcc x 0.5/score", 0.25, 1),
        ("mcc x 0.5/score", 0.5, 2),
        ("domain/loss", 2.0, 1),
    ]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_it_and_overwrite_replaces_it(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path / "run", {}, tensorboard=True)
    folder.inner("seed0", {}).append_metrics(LINE)
    folder.append_metrics(LINE | {"epoch": 4})
    for path, step in ((folder.path, 4), (folder.path / "seed0", 3)):
        read = EventAccumulator(str(path)).Reload()
        (event,) = read.Scalars("val/object")
        assert (event.step, event.value) == (step, 0.75)
    RunFolder(tmp_path / "run", {}, overwrite=True)
    assert {p.name for p in (tmp_path / "run").iterdir()} - {".lock"} == {"config.json", "metrics.jsonl"}
