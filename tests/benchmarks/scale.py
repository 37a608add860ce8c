"""Processor time and peak memory of each stage as a set of images grows, and the exponent of that growth.

python tests/benchmarks/scale.py [--rows 1000 3000 10000] [--classes 20] [--stages read split probe ...]

Features are synthetic: a centre for each class and noise. A third of the rows are near-duplicates of others, every
tenth row is a copy. Each stage runs in a process of its own; memory is what it needs beyond its input. An exponent of 1
is linear growth between two sizes.
"""

import argparse
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import machine
import numpy as np
import torch
from PIL import Image

from transfer.curation.inspection.duplicate_images import find_duplicates
from transfer.curation.inspection.label_suspects import rank_labels
from transfer.curation.inspection.outliers import measure_neighbour_distance
from transfer.curation.picking.choose import PickingTask, choose_images
from transfer.data.duplicates import Inspection, group_near_duplicates
from transfer.data.sets.load import load_table
from transfer.data.splits import split
from transfer.data.table import ImageTable
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.linear import solve_linear_probe

WIDTH = 1280
FILES = 100  # pictures that the rows of the manifest repeat
PICKED = 50
LABELS = 5  # of each class, for `pick`


@dataclass
class Case:
    """A set of images in every form that a stage takes."""

    manifest: Path
    table: ImageTable
    inspection: Inspection
    features: np.ndarray
    labels: np.ndarray
    classes: int


def make_case(folder: Path, rows: int, classes: int) -> Case:
    """Return a set of `rows` images; its files are in `folder`."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    features = rng.standard_normal((classes, WIDTH), np.float32)[labels]
    features += 2 * rng.standard_normal((rows, WIDTH), np.float32)
    hashes = rng.integers(0, 2**63, rows, dtype=np.uint64)
    near = np.arange(0, rows - classes, 3)
    hashes[near] = hashes[near + classes] ^ np.uint64(5)
    features[near] = features[near + classes] + 0.1 * rng.standard_normal((len(near), WIDTH), np.float32)
    names = np.array([f"{row - row % 10 if row % 10 == 1 else row:064x}" for row in range(rows)])
    lines = ["path,object"]
    for row in range(rows):
        path = folder / f"{row % FILES}.png"
        if row < FILES:
            Image.new("RGB", (16, 16), (row, 2 * row, 100)).save(path)
        lines.append(f"{path.name},class{labels[row]:04}")
    manifest = folder / "images.csv"
    manifest.write_text("\n".join(lines) + "\n")
    inspection = Inspection(names, hashes, np.full(rows, ""))
    return Case(manifest, load_table(str(manifest)), inspection, features, labels, classes)


def solve_probe(case: Case) -> None:
    """Solve a linear probe, its L2 chosen on a fifth of the rows."""
    x, labels = torch.from_numpy(case.features), torch.from_numpy(case.labels)
    val = torch.arange(len(x)) // case.classes % 5 == 0
    heads = Heads([HeadSpec("object", classes=tuple(map(str, range(case.classes))))], WIDTH)
    solve_linear_probe(heads, (x[~val], {"object": labels[~val]}), (x[val], {"object": labels[val]}))


def pick_images(case: Case) -> None:
    """Choose images to label, with a few labels of each class."""
    labels = np.where(np.arange(len(case.labels)) < LABELS * case.classes, case.labels, -1)
    groups = group_near_duplicates(case.inspection)
    choose_images(PickingTask(case.features, labels, case.table.objects, groups), PICKED)


STAGES: dict[str, Callable[[Case], object]] = {
    "read": lambda case: load_table(str(case.manifest)),
    "split": lambda case: split(case.table, case.inspection, keep_near_duplicates_together=True),
    "probe": solve_probe,
    "near-duplicates": lambda case: group_near_duplicates(case.inspection),
    "inspect: duplicates": lambda case: list(find_duplicates(case.table, case.inspection, case.features)),
    "inspect: labels": lambda case: rank_labels(case.features, case.labels),
    "inspect: outliers": lambda case: measure_neighbour_distance(case.features, np.arange(len(case.labels))),
    "pick": pick_images,
}


def run_stage(name: str, case: Case) -> tuple[float, float]:
    """Return the processor seconds of a stage, and the MiB that it adds at most, in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    if not (process := os.fork()):
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        STAGES[name](case)
        seconds = time.process_time() - started
        theirs.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))
        os._exit(0)
    theirs.close()
    os.waitpid(process, 0)
    return ours.recv()


def main() -> None:
    """Print a row for each stage and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.describe(), f"{options.classes} classes", sep="; ", flush=True)
    before: dict[str, tuple[int, float]] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            case = make_case(Path(folder), rows, options.classes)
            for name in options.stages:
                seconds, memory = run_stage(name, case)
                growth = "-"
                if name in before:
                    growth = f"{math.log(seconds / before[name][1]) / math.log(rows / before[name][0]):.2f}"
                before[name] = rows, seconds
                print(f"{name:20} {rows:7,} {seconds:8.2f} s {memory:6.0f} MiB  exponent {growth}", flush=True)


if __name__ == "__main__":
    main()
