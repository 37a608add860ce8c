"""Peak memory of `transfer predict --out FILE --resume` for 1,000 and 20,000 images, which a list in a pipe names.

python tests/benchmarks/prediction_memory.py [--images N ...] [--rounds N]

Each size runs in a process of its own, on pictures of 32 pixels that are drawn for it; the run is a linear probe of
glyphnet on the embedded digits. After it, the finished file is resumed, which computes nothing.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
from PIL import Image

from transfer.cli.main import main as transfer


def draw(folder: Path, count: int) -> bytes:
    """Draw `count` pictures into `folder`; return their names, each ended by NUL."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(count):
        names.append(folder / f"{i // 1000:03d}" / f"{i:06d}.png")
        names[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(names[-1])
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def predict(words: list[str], names: bytes) -> tuple[float, float]:
    """Run `transfer predict` in a process of its own; return its peak memory in MiB, and its seconds."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--inside", json.dumps(words)]
    done = subprocess.run(command, input=names, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return float(done.stdout.split()[-1]), time.perf_counter() - began


def main() -> None:
    """Print the table; with --inside, the peak of this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        assert transfer(json.loads(options.inside)) == 0
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = ["train", "--data", "digits", "--backbone", "glyphnet", "--device", "cpu", "--no-report"]
        command = [sys.executable, "-m", "transfer", *train, "--out", str(folder / "run")]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        for count in options.images:
            names = draw(folder / str(count), count)
            words = ["predict", str(folder / "run"), "-", "--device", "cpu", "--resume"]
            rounds = [predict([*words, "--out", str(folder / f"{count}-{i}")], names) for i in range(options.rounds)]
            again = predict([*words, "--out", str(folder / f"{count}-0")], names)
            peak, seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
            rows.append((count, peak, count / seconds, again[0], seconds / again[1]))
    print(machine.describe(), f"\nglyphnet, {options.rounds} rounds", sep="")
    head = ["images", "peak MiB", "ratio to first", "images/s with start-up", "resumed: peak MiB", "times as fast"]
    table = [
        [f"{count:,}", f"{peak:.0f}", f"{peak / rows[0][1]:.3f}", f"{rate:.0f}", f"{other:.0f}", f"{faster:.1f}"]
        for count, peak, rate, other, faster in rows
    ]
    print(machine.format_table([head, *table]))


if __name__ == "__main__":
    main()
