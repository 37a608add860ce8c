"""All that is run in several processes, in one go: to start each alone would take most of the time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from transfer.data.table import ImageTable

CHECKS = {"words": 3, "rows": 3, "norms": 3, "extraction": 2, "full": 2}
TRAIN = (
    "train",
    "--backbone",
    "test_resnet",
    "--random-init",
    "--image-size",
    "32",
    "--epochs",
    "2",
    "--device",
    "cpu",
)
TRAIN += ("--batch-size", "10", "--cut-precision", "float32", "--loss-weights", "object:1,domain:0.5")
ADAPT = ("adapt", "--source", "plain", "--target", "striped", "--backbone", "test_resnet", "--random-init")
ADAPT += ("--image-size", "32", "--epochs", "1", "--steps", "3", "--batch-size", "7", "--device", "cpu")
RUNS = {
    "parts": (*TRAIN, "--policy", "partial:1", "--statistics", "frozen", "--accumulate", "3"),
    "frozen": (*TRAIN, "--policy", "partial:1", "--statistics", "frozen", "--mixup", "0.4", "--delta", "0.01"),
    "synced": (*TRAIN, "--policy", "partial:2", "--augment", "crop", "--average", "ema"),
    "features": (*TRAIN, "--policy", "linear_probe", "--probe", "trained", "--dropout", "0.3"),
    "adapted": (*ADAPT, "--policy", "partial:1", "--method", "dan,bsp"),
}
"""Run by one process and by two."""


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory, images: ImageTable) -> Any:
    """Return what came of each job (see ranks.py), by name."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked")
    folder = tmp_path_factory.mktemp("together")
    data = Path(str(images.paths[0])).parents[2]
    (folder / "paths.json").write_text(json.dumps(images.paths.tolist()))
    jobs: list[dict[str, Any]] = [
        {"name": name, "world": world, "check": name, "folder": str(folder)} for name, world in CHECKS.items()
    ]
    for name, args in RUNS.items():
        for world in (1, 2):
            given = [*args, "--data", str(data), "--out", str(folder / f"run {name} {world}")]
            env = {"TRANSFER_CACHE": str(folder / f"cache {name} {world}")}
            jobs.append({"name": f"{name} {world}", "world": world, "args": given, "env": env})
    short, long = [*TRAIN, "--data", str(data)], [*TRAIN, "--data", str(data), "--epochs", "8"]
    env = {"TRANSFER_CACHE": str(folder / "cache of failures")}
    (folder / "taken").mkdir()
    (folder / "taken" / "letter.txt").touch()
    jobs += [
        {"name": name, "world": 2, "args": args, "env": env, **more}
        for name, args, more in (
            ("one fails", [*short, "--out", str(folder / "taken")], {}),
            ("all fail", [*short, "--policy", "partly"], {}),
            ("mistyped", [*short, "--polcy", "partial"], {}),
            ("alone", ["backbones"], {}),
            ("killed", [*long, "--policy", "partial:1", "--out", str(folder / "killed")], {"kill": [1, "epoch   2/"]}),
        )
    ]
    again = [*long, "--policy", "partial:1", "--out", str(folder / "killed"), "--resume"]
    jobs.append({"name": "resumed", "world": 3, "args": again, "env": env})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("ranks.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=600)
    return {job["name"]: json.loads((folder / f"{job['name']}.json").read_text()) for job in jobs} | {"": folder}
