"""What goes wrong in the midst of a run: files, disks, signals. It ends in one line, and goes on to the same bits."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saved_runs import read_run

from transfer.config.train import TrainConfig
from transfer.data.images import batches as images_module
from transfer.errors import TransferError
from transfer.training.train import train

PLAIN = {"probe": "trained", "epochs": 2, "batch_size": 16, "refit": False}
FRESH = {"policy": "full", "augment": "flip", "epochs": 3, "batch_size": 12, "cache": False}


@pytest.fixture
def mine(folder: Path, tmp_path: Path) -> Path:
    """The images, to be harmed."""
    shutil.copytree(folder, tmp_path / "images")
    return tmp_path / "images"


@pytest.mark.parametrize("harm", ["gone", "shrunk", "other"])
def test_an_image_that_is_gone_or_another(
    config: Callable[..., TrainConfig], mine: Path, tmp_path: Path, harm: str
) -> None:
    asked = FRESH | {"data": str(mine)}
    train(config(out=tmp_path / "whole", **asked))
    victims = {file: file.read_bytes() for file in mine.rglob("*.png")}

    def strike(line: dict[str, Any]) -> None:
        contents = list(victims.values())
        for file, content, following in zip(victims, contents, [*contents[1:], contents[0]], strict=True):
            if harm == "gone":
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content[:100] if harm == "shrunk" else following + b"!")

    with pytest.raises(TransferError, match=r"\.png") as caught:
        train(config(out=tmp_path / "run", **asked), on_epoch=strike)
    said = "No such file" if harm == "gone" else "was changed since the run started: restore it"
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    if harm == "other":
        with pytest.raises(TransferError, match="changed since the run started"):
            train(config(out=tmp_path / "run", resume=True, **asked))
    for file, content in victims.items():
        file.write_bytes(content)
    told: list[dict[str, Any]] = []
    train(config(out=tmp_path / "run", resume=True, **asked), on_epoch=told.append)
    assert len(told) == 3
    assert read_run(tmp_path / "run") == read_run(tmp_path / "whole")


def test_a_thread_that_fails_ends_the_run_and_it_goes_on(
    config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(out=tmp_path / "whole", **FRESH))
    augment, count = images_module.augment, [0]

    def failing(*args: Any) -> Any:
        count[0] += 1
        if count[0] == 40:
            raise SystemError("a thread broke down")
        return augment(*args)

    with monkeypatch.context() as patch:
        patch.setattr(images_module, "augment", failing)
        with pytest.raises(SystemError, match="broke down"):
            train(config(out=tmp_path / "run", **FRESH))
    states = list((tmp_path / "run" / "states").iterdir())
    assert states
    train(config(out=tmp_path / "run", resume=True, **FRESH))
    assert read_run(tmp_path / "run") == read_run(tmp_path / "whole")


@pytest.mark.parametrize("code", [pytest.param(errno.ENOSPC, marks=pytest.mark.slow), errno.EACCES])
def test_any_write_that_fails(
    config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Each write of a run in turn; then there is room again."""
    train(config(out=tmp_path / "whole", **PLAIN))  # and what is kept of the images is kept
    fsync, failed = os.fsync, 0
    for number in range(1, 99):
        count = [0]

        def full(handle: int) -> None:
            count[0] += 1  # noqa: B023
            if count[0] == number:  # noqa: B023
                raise OSError(code, os.strerror(code))
            fsync(handle)

        out = tmp_path / f"run{number}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                train(config(out=out, checkpoint_minutes=0, **PLAIN))
            except TransferError as error:
                failed += 1
                assert os.strerror(code) in str(error)  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
            if count[0] < number:
                break
        train(config(out=out, resume=True, **PLAIN))
        assert read_run(out) == read_run(tmp_path / "whole"), number
        if code == errno.EACCES and number > 4:
            break
    assert failed >= 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    asked = PLAIN | {"policy": "partial:1"}
    train(config(out=tmp_path / "whole", **asked))
    disk, failed = tmp_path / "disk", 0
    disk.mkdir()
    for size in (4, 12, 40, 120, 400, 1000, 1600, 2400, 3600):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no mounting here")
        try:
            try:
                train(config(out=disk / "run", **asked))
            except TransferError as error:
                failed += 1
                assert "\n" not in str(error)  # noqa: PT017
                assert "No space left" in str(error) or "os error 28" in str(error), size  # noqa: PT017
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            train(config(out=disk / "run", resume=True, **asked))
            assert read_run(disk / "run") == read_run(tmp_path / "whole"), size
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert failed >= 4


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that can be heard")
def test_a_signal_to_the_command(config: Callable[..., TrainConfig], folder: Path, tmp_path: Path) -> None:
    """A process of its own, with other workers and no cache, is stopped; it goes on here, to the bits of a run here."""
    asked = {"policy": "partial:1", "augment": "flip", "epochs": 12, "batch_size": 8, "patience": 0}
    out, lines = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    argv = ["train", "--data", str(folder), "--backbone", "test_resnet", "--policy", "partial:1", "--augment", "flip"]
    argv += ["--epochs", "12", "--batch-size", "8", "--patience", "0", "--device", "cpu", "--workers", "4"]
    command = [sys.executable, "-m", "transfer", *argv, "--no-cache", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        end = time.monotonic() + 120
        while not (lines.exists() and lines.stat().st_size) and time.monotonic() < end:
            time.sleep(0.02)
        with pytest.raises(TransferError, match="another process is writing to the run folder"):
            train(config(out=out, resume=True, **asked))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("transfer: stopped by SIGTERM, all saved")
    assert "Traceback" not in said
    done = len(lines.read_text().splitlines())
    assert 1 <= done < 12
    train(config(out=out, resume=True, **asked))
    train(config(out=tmp_path / "whole", **asked))
    assert read_run(out, "workers", "cache") == read_run(tmp_path / "whole", "workers", "cache")
