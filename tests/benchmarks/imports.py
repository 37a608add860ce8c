"""Processor seconds of what a command imports, and of a whole warm `transfer train`, each the median of several runs.

python tests/benchmarks/imports.py [--repeats N]

Each row is a process of its own. Processor time, user and system, depends less on what else the machine does than
seconds on the clock. `python -X importtime -m transfer train ...` names the modules.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

STATEMENTS = {
    "torch": "import torch",
    "torch, torchvision, timm": "import torch, torchvision, timm",
    "the same without the compiler": (
        "from transfer.runtime.compiler import defer_compiler\n"
        "with defer_compiler():\n    import torch, torchvision, timm"
    ),
    "`transfer train`, before it starts": (
        "import transfer.cli.main\nfrom transfer.runtime.compiler import defer_compiler\n"
        "with defer_compiler():\n    import transfer.training.train"
    ),
}
TRAIN = ("train", "--data", "digits", "--backbone", "tf_efficientnet_lite0", "--image-size", "64", "--overwrite")


def measure(words: list[str], environment: dict[str, str]) -> float:
    """Return the processor seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = {name: ["-c", code] for name, code in STATEMENTS.items()}
    with tempfile.TemporaryDirectory() as out:
        whole = ["-m", "transfer", *TRAIN, "--out", f"{out}/run"]
        rows |= {"a warm `transfer train --no-report`": [*whole, "--no-report"], "the same with its page": whole}
        print("| process | processor s |\n|---|---|")
        for name, words in rows.items():
            measure(words, dict(os.environ))  # fills the caches of files and of features
            print(f"| {name} | {statistics.median(measure(words, dict(os.environ)) for _ in range(repeats)):.2f} |")


if __name__ == "__main__":
    main()
