"""A run that is killed at any moment, again and again, comes to the bits of one that never was.

``TRANSFER_KILLS`` (default 30) says how many kills.
"""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import read_run

from transfer.cli import main

KILLS = int(os.environ.get("TRANSFER_KILLS", "30"))


@pytest.fixture
def processes(monkeypatch):
    """Start the command in a process of its own, with all that it imports already there."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transfer.adaptation.adapt", "timm", "sklearn.linear_model"])

    def start(argv: list[str]) -> Any:
        process = context.Process(target=main.main, args=(argv,))
        process.start()
        return process

    return start


@pytest.mark.slow
def test_a_killed_run_comes_to_the_same_bits(processes, images, weights_store, tmp_path):
    argv = ["adapt", "--data", str(Path(str(images.paths[0])).parents[2]), "--source", "plain", "--target", "striped"]
    argv += ["--method", "mcc,shot,growing", "--policy", "partial:1", "--weight", "0.5,1", "--bottleneck", "16"]
    argv += ["--backbone", "test_resnet", "--weights", str(weights_store / "test_resnet.safetensors")]
    argv += ["--epochs", "4", "--steps", "12", "--batch-size", "12", "--device", "cpu", "--workers", "1", "--resume"]
    first = processes([*argv, "--out", str(tmp_path / "whole")])
    first.join()  # it fills the cache
    assert first.exitcode == 0
    began = time.monotonic()
    processes([*argv, "--out", str(tmp_path / "again")]).join()
    lasts, rng = time.monotonic() - began, np.random.default_rng(0)
    whole = read_run(tmp_path / "whole")
    assert read_run(tmp_path / "again") == whole
    kills = compared = 0
    while kills < KILLS:
        out = tmp_path / f"run{compared}"
        while not (out / "result.json").exists():
            process = processes([*argv, "--out", str(out)])
            process.join(rng.uniform(0, lasts) if kills < KILLS else None)  # the last one is let go on
            if process.exitcode is None:
                process.kill()
                process.join()
                kills += process.exitcode == -9
            else:
                assert process.exitcode == 0
                assert (out / "result.json").exists()
        assert read_run(out) == whole
        compared += 1
    print(f"{kills} kills survived, {compared} runs compared")
