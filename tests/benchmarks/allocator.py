"""Seconds of training epochs when what a step frees is kept for the next one, and when glibc gives it back.

python tests/benchmarks/allocator.py [--policies full partial:3 ...] [--backbones B ...] [--data D] [--shots N]

Each is `transfer train` in a process of its own, the two in turn; the median epoch, without the first one, which takes
the memory from the system in both. The results must be the same to the last digit.
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

LEFT = {"GLIBC_TUNABLES": ""}
"""A user who has settled the matter, by changing nothing."""


def trained(words: list[str], variables: dict[str, str]) -> tuple[list[float], float, dict]:
    """Run `transfer train`; return seconds of epochs, the MiB that it took at most, and the test's figures."""
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
    given = parser.parse_args()
    rows = [["backbone", "policy", "given back s", "kept s", "times", "MiB", "MiB"]]
    for backbone in given.backbones:
        for policy in given.policies:
            words = ["--data", given.data, "--shots", given.shots, "--backbone", backbone, "--policy", policy]
            sides: list[list[float]] = [[], []]
            for _ in range(given.rounds):
                runs = [trained([*words, "--epochs", "4"], variables) for variables in (LEFT, {})]
                if runs[0][2] != runs[1][2]:
                    raise SystemExit(f"{backbone} {policy}: the results differ")
                for side, (seconds, _, _) in zip(sides, runs, strict=True):
                    side += seconds
            back, kept = map(statistics.median, sides)
            sizes = [f"{peak:.0f}" for _, peak, _ in runs]
            rows.append([backbone, policy, f"{back:.2f}", f"{kept:.2f}", f"{back / kept:.2f}", *sizes])
    print(machine.line(), f"\n{given.data}, {given.shots} labels a class and domain, {given.rounds} rounds", sep="")
    print(machine.table(rows))


if __name__ == "__main__":
    main()
