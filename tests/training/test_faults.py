"""Processes killed at random moments, resumed until they are done, compared with undisturbed ones to the bit.

``TRANSFER_KILLS`` (default 30) says how many kills of training, and how many of extraction.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import read_run

from transfer.data.table import ImageTable

KILLS = int(os.environ.get("TRANSFER_KILLS", "30"))
SLOWED = 0.02  # seconds that each step takes longer, so that kills fall into steps and not into the start alone

# A worker that is started once, imports everything, and from then on forks a process for each run: starting Python and
# torch takes far longer than the run.
SERVER = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import transfer.training.train, transfer.cli.main, transfer.training.epoch as epoch
from transfer.training.resume import FitCheckpoints
step = FitCheckpoints.step
def slowed(self, save, *, end=False):
    time.sleep(float(os.environ["SLOWED"]))
    step(self, save, end=end)
FitCheckpoints.step = slowed
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        sys.stdin = open(os.devnull)
        out = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(out, 1), os.dup2(out, 2)
        os._exit(transfer.cli.main.main(line.split("\\t")[:-1]))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

TRAINING = {
    "trained probe": ("--policy linear_probe --probe trained --epochs 12",),
    "lp_ft": ("--policy lp_ft:1 --epochs 6 --refit",),
    "gradual, ema": ("--policy gradual:2 --epochs 8 --average ema --optimizer sgd",),
    "full, augmented, swa": ("--policy full --epochs 4 --augment crop --average swa",),
    "separate": ("--policy partial:1 --epochs 4 --heads separate --mixup 0.4",),
    "seeds, cycles": ("--policy partial:1 --epochs 4 --seeds 0,1 --cycles 2 --no-refit",),
    "lbfgs": ("--policy linear_probe --probe trained --optimizer lbfgs --batch-size 0 --epochs 6",),
    "lookahead, views": (
        "--policy partial:1 --epochs 4 --optimizer lookahead_lion --lr 0.0003 --augment flip --views 2",
    ),
}


class Server:
    """Runs commands, one after the other, in processes of their own, and kills them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, argv: list[str], kill_after: float | None = None) -> tuple[int, float]:
        """Return the exit code, and how long it took; -9 where it was killed first."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\t".join(argv) + "\t\n")
        self.process.stdin.flush()
        pid, began = int(self.process.stdout.readline()), time.monotonic()
        if kill_after is not None:
            end = os.pidfd_open(pid)
            try:
                import select

                if not select.select([end], [], [], kill_after)[0]:
                    os.kill(pid, 9)
            finally:
                os.close(end)
        return int(self.process.stdout.readline()), time.monotonic() - began


@pytest.fixture
def server(tmp_path: Path, weights_store: Path) -> Any:
    environment = {
        "TRANSFER_WEIGHTS": str(weights_store),
        "TRANSFER_CACHE": str(tmp_path / "cache"),
        "SLOWED": str(SLOWED),
        "LOG": str(tmp_path / "log"),
    }
    served = Server(environment)
    yield served
    served.process.stdin.close()
    served.process.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="kills by file descriptors of Linux")
def test_training_survives_kills(server: Server, folder: Path, tmp_path: Path, capsys: Any) -> None:
    rng, kills, compared = random.Random(int(os.environ.get("TRANSFER_KILLS_SEED", "0"))), 0, 0
    wanted: dict[str, tuple[dict[str, Any], float]] = {}
    while kills < KILLS:
        name = rng.choice(list(TRAINING))
        argv = ["train", "--data", str(folder), "--backbone", "test_resnet", "--batch-size", "8", "--device", "cpu"]
        argv += ["--workers", "2", *TRAINING[name][0].split()]
        if name not in wanted:
            code, took = server.run([*argv, "--out", str(tmp_path / f"{name} whole")])
            assert code == 0, (tmp_path / "log").read_text()[-2000:]
            wanted[name] = read_run(tmp_path / f"{name} whole"), took
        out, here = tmp_path / f"{name} {compared}", 0
        while True:
            after = rng.uniform(0, wanted[name][1]) if here < 6 else None
            minutes = rng.choice(["0", "0.005", "10"])
            resumed = [*argv, "--out", str(out), "--resume", "--checkpoint-minutes", minutes]
            code, _ = server.run(resumed, after)
            if code == 0:
                break
            assert code == -9, (tmp_path / "log").read_text()[-2000:]
            kills, here = kills + 1, here + 1
        compared += 1
        assert read_run(out) == wanted[name][0], f"{name} after {here} kills"
    with capsys.disabled():
        print(f"\ntraining: {kills} kills, {compared} runs compared, all of them bit-identical")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="kills by file descriptors of Linux")
def test_extraction_survives_kills(
    server: Server, images: ImageTable, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept after kills is what is kept without, row for row."""
    from PIL import Image

    from transfer.disk_cache import DiskCache

    rng, kills, compared = random.Random(1), 0, 0
    data, pixels = tmp_path / "many", np.random.default_rng(0)
    for i in range(900):
        file = data / images.objects[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(file)

    def kept(root: Path) -> dict[Any, bytes]:
        monkeypatch.setenv("TRANSFER_CACHE", str(root))
        store = DiskCache()
        assert store.verify() == []
        found: dict[Any, bytes] = {}
        for about in sorted(store.root.rglob("about.json")):
            record = json.loads(about.read_text())
            shape, dtype = record["shape"], np.dtype(record["dtype"])
            size = int(np.prod(shape)) * dtype.itemsize
            for file in sorted(about.parent.glob("*.rows")):
                content = file.read_bytes()
                count = (len(content) - 32) // (size + 36)
                for i in range(count):
                    digest = content[count * size + i * 36 :][:32]
                    found[about.parent.name, digest] = content[i * size : (i + 1) * size]
        return found

    argv = ["train", "--data", str(data), "--backbone", "test_resnet", "--device", "cpu", "--workers", "2"]
    argv += ["--policy", "linear_probe", "--probe", "trained", "--epochs", "1"]
    cache = tmp_path / "cache"
    code, took = server.run([*argv, "--out", str(tmp_path / "whole")])
    assert code == 0, (tmp_path / "log").read_text()[-2000:]
    wanted = kept(cache), read_run(tmp_path / "whole")
    assert len(wanted[0]) >= 900
    while kills < KILLS:
        cache.rename(tmp_path / f"cache {compared}")
        out, here = tmp_path / f"run {compared}", 0
        while True:
            code, _ = server.run([*argv, "--out", str(out), "--resume"], rng.uniform(0, took) if here < 6 else None)
            if code == 0:
                break
            assert code == -9, (tmp_path / "log").read_text()[-2000:]
            kills, here = kills + 1, here + 1
        compared += 1
        assert kept(cache) == wanted[0]
        assert read_run(out) == wanted[1]
    with capsys.disabled():
        print(f"\nextraction: {kills} kills, {compared} caches compared, all of them bit-identical")
