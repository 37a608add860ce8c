"""Seconds of whole commands: this checkout beside another one, such as that of an earlier commit.

python tests/benchmarks/commands.py OTHER [--data office31] [--backbone NAME] [--rounds N]

Each checkout has a cache folder of its own, empty before its first `train`: that one is cold, all others are warm. The
commands of both alternate; medians over the rounds and their ratio, with the load of the machine before and after.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from PIL import Image

from transfer.data.sets.load import load_table

HERE = Path(__file__).parents[2]
ADDED = 20  # images for `transfer update`, turned by 3 degrees to be new


def parse() -> argparse.Namespace:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("other", type=Path)
    options.add_argument("--data", default="office31")
    options.add_argument("--backbone", default="tf_efficientnet_lite0")
    options.add_argument("--rounds", type=int, default=5)
    return options.parse_args()


def time_command(checkout: Path, cache: Path, *words: object) -> float:
    """Return the seconds of the command `words` of `checkout`, as a process."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "TRANSFER_CACHE": str(cache)}
    begun = time.perf_counter()
    command = [sys.executable, "-m", "transfer", *map(str, words)]
    # Its folder: python -m looks for the package in the current one first.
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, env=environment, cwd=checkout, check=True, **silent)
    return time.perf_counter() - begun


def write_new_images(data: str, folder: Path) -> None:
    """Write `ADDED` images of `data`, slightly turned, into class folders."""
    table = load_table(data)
    for number, row in enumerate(range(0, len(table), -(-len(table) // ADDED))):
        into = folder / table.objects[table.object[row]]
        into.mkdir(parents=True, exist_ok=True)
        Image.open(table.paths[row]).convert("RGB").rotate(3).save(into / f"new{number}.jpg")


def main() -> None:
    """Print a line for each command."""
    options = parse()
    seconds: dict[str, dict[Path, list[float]]] = {}
    print(machine.describe(), f"load average {os.getloadavg()[0]:.1f}", sep="; ")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_new_images(options.data, root / "added")
        same = ("--data", options.data, "--backbone", options.backbone)
        for number in range(options.rounds + 1):
            for checkout in (options.other.resolve(), HERE):
                place = root / str(checkout == HERE)
                add = ("update", place / "base", "--add", root / "added", "--domain", "webcam")
                commands = {"train": ("train", *same), "inspect": ("inspect", *same), "update": add}
                for name, words in commands.items():
                    out = place / ("base" if (name, number) == ("train", 0) else "out")
                    shutil.rmtree(out, ignore_errors=True)
                    taken = time_command(checkout, place / "cache", *words, "--out", out)
                    kind = f"{name}, {'warm' if number or name == 'inspect' else 'cold'}"
                    if number or name == "train":
                        seconds.setdefault(kind, {}).setdefault(checkout, []).append(taken)
    for kind, (before, now) in ((kind, found.values()) for kind, found in seconds.items()):
        a, b = statistics.median(before), statistics.median(now)
        print(f"{kind:14} {a:6.1f} s {b:6.1f} s  {a / b:.2f} times faster  n = {len(now)}")
    torch = statistics.median(time_import() for _ in range(3))
    print(f"import torch   {torch:6.1f} s; load average {os.getloadavg()[0]:.1f}")


def time_import() -> float:
    """Return the seconds of a process that imports torch."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
