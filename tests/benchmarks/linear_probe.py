"""Seconds of a linear probe on Office-31 as a process, cold and warm, compared with 20 epochs of the usual loop.

python tests/benchmarks/linear_probe.py [--images N ...]

The usual loop (see baseline.py) runs the frozen network over every image in every epoch. --timed of its epochs are
timed, without start-up, with 0 and with 2 loader processes; the fastest, times 20, counts. `transfer train` is timed as
a process, start-up and result included, with an empty cache and then with the filled one. Several --images show the
growth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on both sides: spinning threads starve the loader's processes

import baseline
import machine
import numpy as np
import torch
from torch import nn

from transfer.data.sets.office31 import find_office31

EPOCHS = 20


def time_transfer(data: Path, backbone: str, cache: Path) -> tuple[float, dict]:
    """Return the seconds of `transfer train` as a process, and its result."""
    with tempfile.TemporaryDirectory() as out:
        words = [
            "train",
            "--data",
            str(data),
            "--backbone",
            backbone,
            "--policy",
            "linear_probe",
            "--out",
            f"{out}/run",
        ]
        environment = os.environ | {"TRANSFER_CACHE": str(cache)}
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "transfer", *words], check=True, env=environment, capture_output=True)
        return time.perf_counter() - started, json.loads(Path(out, "run", "result.json").read_text())


def time_usual_epoch(data: Path, backbone: str, weights: Path, timed: int) -> float:
    """Return the seconds of one epoch of the usual loop, the fastest of `timed`, with the better number of workers."""
    model = baseline.load_network(backbone, weights)
    seconds = []
    for workers in (0, 2):
        batches = baseline.make_loader(data, model, workers, shuffle=True)
        heads = nn.Linear(model.num_features, 31), nn.Linear(model.num_features, 3)
        seconds += [baseline.time_epoch(model, batches, heads) for _ in range(timed)]
    return min(seconds)


def subset(root: Path, images: int, folder: Path) -> Path:
    """Return a folder of links to `images` files, as evenly drawn over domains and objects as they come."""
    files = sorted(root.glob("*/images/*/*.jpg"))
    if images >= len(files):
        return root
    for i in np.linspace(0, len(files) - 1, images).astype(int):
        link = folder / files[i].relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(files[i].resolve())
    return folder


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[4110])
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--warm", type=int, default=3, help="warm runs; the median counts")
    parser.add_argument("--timed", type=int, default=2, help="epochs of the usual loop")
    options = parser.parse_args()
    weights, root = Path(os.environ["TRANSFER_WEIGHTS"]), find_office31()
    rows = [["images", "cold s", "warm s", f"{EPOCHS} epochs s", "cold x", "warm x", "object", "domain"]]
    for images in options.images:
        with tempfile.TemporaryDirectory() as links, tempfile.TemporaryDirectory() as cache:
            data = subset(root, images, Path(links))
            cold, _ = time_transfer(data, options.backbone, Path(cache))
            runs = [time_transfer(data, options.backbone, Path(cache)) for _ in range(options.warm)]
            warm, result = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
            usually = EPOCHS * time_usual_epoch(data, options.backbone, weights, options.timed)
        accuracy = [f"{result['test'][head]['accuracy']:.4f}" for head in ("object", "domain")]
        ratios = [f"{usually / cold:.1f}", f"{usually / warm:.1f}"]
        rows.append([str(images), f"{cold:.1f}", f"{warm:.1f}", f"{usually:.0f}", *ratios, *accuracy])
    print(machine.describe(), f"\n{options.backbone}, n = {', '.join(map(str, options.images))}", sep="")
    print(machine.format_table(rows))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
