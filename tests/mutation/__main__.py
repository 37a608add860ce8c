"""Plant small faults in modules, one at a time, and report those that no test notices: see README.md here."""

import argparse
import ast
import gc
import importlib
import os
import random
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded; a fork does not have the threads of its parent
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(tempfile.gettempdir(), "mutation-hypothesis")

from tqdm import tqdm

from tests.mutation.mutants import Mutant, find_mutants
from tests.mutation.trial import NOT_PLANTED, Trial, measure_baseline, run_imported, run_trials

ROOT = Path(__file__).resolve().parents[2]
LEAST_KILLED = 0.9  # share of the mutants that are not equivalent; below it the exit code is 1
BASELINE_SECONDS = 600.0


@dataclass
class Tally:
    """What became of a module's mutants."""

    killed: int = 0
    by_time: int = 0
    equivalent: int = 0
    survivors: list[str] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """The mutants that are not equivalent."""
        return self.killed + self.by_time + len(self.survivors)

    def __str__(self) -> str:
        """Return the counts as a line."""
        share = (self.killed + self.by_time) / max(self.counted, 1)
        return (
            f"{self.counted + self.equivalent} mutants, {self.killed} killed, {self.by_time} by time, "
            f"{self.equivalent} equivalent, {len(self.survivors)} survive: {share:.1%} killed"
        )

    def add(self, other: "Tally") -> None:
        """Add another module's."""
        self.killed, self.by_time = self.killed + other.killed, self.by_time + other.by_time
        self.equivalent, self.survivors = self.equivalent + other.equivalent, self.survivors + other.survivors


def main() -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="such as transfer/training/epoch.py; by default those of the table")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each module; 0 (default): all")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample")
    parser.add_argument("--lines", default="", help="mutants whose line contains this text only")
    parser.add_argument("--list", action="store_true", help="list the mutants and run nothing")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="processor time of a test, and 5 times what it takes"
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the project")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_name("mutants.toml"))
    options = parser.parse_args()
    table = tomllib.loads(options.table.read_text(encoding="utf-8"))
    os.chdir(options.root)
    sys.path[:0] = [str(options.root)]
    if not options.list:
        for name in table.get("preload", []):
            importlib.import_module(name)
        gc.freeze()
    total = Tally()
    for module in options.modules or table["modules"]:
        tally = run_module(module, table, options)
        total.add(tally)
        if not options.list:
            print(module, tally, sep=": ", flush=True)
    if options.list:
        return 0
    print("all", total, sep=": ")
    return int(total.killed + total.by_time < LEAST_KILLED * total.counted)


def run_module(module: str, table: dict[str, Any], options: argparse.Namespace) -> Tally:
    """Run the tests over the mutants of `module`, and print those that survive."""
    file = (options.root / module).resolve()
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    mutants = [mutant for mutant in find_mutants(tree, source) if options.lines in mutant.line]
    if options.list:
        print(*(describe(module, mutant) for mutant in mutants), sep="\n")
        return Tally()
    if options.sample and options.sample < len(mutants):
        mutants = [mutants[i] for i in sorted(random.Random(options.seed).sample(range(len(mutants)), options.sample))]
    argued = {(e["module"], e["line"], e["change"]) for e in table.get("equivalent", [])}
    tests = [path for path in (*mirror(module), *table["modules"].get(module, [])) if Path(path).exists()]
    baseline = measure_baseline(options.root, file, tree, tests, BASELINE_SECONDS)
    tally = Tally(equivalent=sum((module, mutant.line, mutant.change) in argued for mutant in mutants))
    trials = []
    for mutant in mutants:
        limits = {test: options.seconds + 5 * baseline.seconds[test] for test in baseline.choose(mutant.lines)}
        if (module, mutant.line, mutant.change) not in argued:
            trials.append(Trial(mutant, limits))
    with tqdm(total=len(trials), desc=module, unit="mutant", disable=None) as bar:
        for trial, code in run_all(options.root, file, tree, trials):
            bar.update()
            tally.killed += code not in (0, None)
            tally.by_time += code is None
            if code == 0:
                tally.survivors.append(describe(module, trial.mutant))
                tqdm.write(f"survives: {tally.survivors[-1]}")
                sys.stdout.flush()
    return tally


def run_all(root: Path, file: Path, tree: ast.Module, trials: list[Trial]) -> Iterator[tuple[Trial, int | None]]:
    """Yield each trial with its code, as `run_trials` gives it; those that no test meets first."""
    met = [trial for trial in trials if trial.tests]
    yield from ((trial, 0) for trial in trials if not trial.tests)
    quick = [trial for trial in met if trial.mutant.in_function]
    slow = [trial for trial in met if not trial.mutant.in_function]
    for trial, code in zip(quick, run_trials(root, file, tree, quick) if quick else (), strict=True):
        if code == NOT_PLANTED:
            slow.append(trial)
        else:
            yield trial, code
    for trial in slow:
        yield trial, run_imported(root, file, tree, trial)


def mirror(module: str) -> tuple[str, ...]:
    """Return the module itself, for its doctests, and its file of tests."""
    path = Path(module)
    return module, str(Path("tests", *path.parts[1:-1], f"test_{path.name}"))


def describe(module: str, mutant: Mutant) -> str:
    """Return where a mutant is and what it changes."""
    return f"{module}:{mutant.number}: {mutant.change}"


if __name__ == "__main__":
    sys.exit(main())
