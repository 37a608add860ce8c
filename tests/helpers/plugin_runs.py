"""Runs by which an extension in a plugin's file shows that it does what a built-in one does."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import run_command

from transfer.config.train import TrainConfig
from transfer.runtime import signals
from transfer.training.train import train


def run_without_and_with(plugin: Path, words: list[str]) -> str:
    """Run a command that needs `plugin` without it and with it; return the error without it."""
    refused = run_command(plugin.parent, *words)
    assert refused.returncode == 2
    done = run_command(plugin.parent, *words, "--plugin", plugin.name)
    assert done.returncode == 0, done.stderr
    return refused.stderr


def check_resuming(config: Callable[..., TrainConfig], folder: Path) -> None:
    """Assert that a run that is interrupted after its first epoch and resumed equals an uninterrupted one."""
    train(config(out=folder / "whole"))

    def interrupt(line: dict[str, Any]) -> None:
        signals._received.append(signal.SIGTERM)

    with pytest.raises(signals.StoppedBySignal):
        train(config(out=folder / "pieces"), on_epoch=interrupt)
    signals._received.clear()
    train(config(out=folder / "pieces", resume=True))
    assert_same_files(folder)


def assert_same_files(folder: Path) -> None:
    """Assert that the runs whole and pieces in `folder` have the same weights and predictions."""
    for name in ("model.safetensors", "predictions.csv"):
        assert (folder / "pieces" / name).read_bytes() == (folder / "whole" / name).read_bytes()
