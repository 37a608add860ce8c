"""Seconds of training epochs when glibc retains freed memory for the next step, and when it returns it.

python tests/benchmarks/malloc.py [--policies full partial:3 ...] [--backbones B ...] [--data D] [--shots N]

Each run is a process of `transfer train`; both kinds alternate. The median epoch counts, without the first one, which
takes the memory from the system either way. The results must be identical.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

GLIBC_DEFAULTS = {"GLIBC_TUNABLES": ""}
"""Set by a user, even if empty, this variable leaves glibc unchanged."""


def time_training(words: list[str], variables: dict[str, str]) -> tuple[list[float], float, dict]:
    """Run `transfer train`; return the seconds of its epochs, its peak MiB and its test results."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "transfer", "train", *words, "--no-report", "--out", f"{folder}/run"]
        process = subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        result = json.loads(Path(folder, "run", "result.json").read_text())
    return [line["seconds"] for line in lines[1:]], used.ru_maxrss / 2**10, result["test"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", nargs="+", default=["full", "partial:3", "partial:1"])
    parser.add_argument("--backbones", nargs="+", default=["mobilenetv2_100", "torchvision:squeezenet1_1"])
    parser.add_argument("--data", default="office31")
    parser.add_argument("--shots", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = [["backbone", "policy", "returned s", "retained s", "times", "MiB", "MiB"]]
    for backbone in options.backbones:
        for policy in options.policies:
            words = ["--data", options.data, "--shots", options.shots, "--backbone", backbone, "--policy", policy]
            sides: list[list[float]] = [[], []]
            for _ in range(options.rounds):
                runs = [time_training([*words, "--epochs", "4"], variables) for variables in (GLIBC_DEFAULTS, {})]
                if runs[0][2] != runs[1][2]:
                    raise SystemExit(f"{backbone} {policy}: the results differ")
                for side, (seconds, _, _) in zip(sides, runs, strict=True):
                    side += seconds
            returned, retained = map(statistics.median, sides)
            sizes = [f"{peak:.0f}" for _, peak, _ in runs]
            rows.append([backbone, policy, f"{returned:.2f}", f"{retained:.2f}", f"{returned / retained:.2f}", *sizes])
    print(
        machine.describe(),
        f"\n{options.data}, {options.shots} labels per class and domain, {options.rounds} rounds",
        sep="",
    )
    print(machine.format_table(rows))


if __name__ == "__main__":
    main()
