"""Course baseline: its networks as reported, as measured here, and transfer on the same images."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import t

from course.config import CourseConfig, NetworkConfig, ScratchConfig
from course.pixels import load_pixel_sets
from course.trainer import HEADS, train_from_scratch
from transfer.config.serialise import to_dict
from transfer.config.train import LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.feature_cache import TrunkCache
from transfer.report.console.tables import text_table
from transfer.runs.folder import RunFolder
from transfer.runs.seeds import score_text
from transfer.runtime.device import get_versions
from transfer.training.setup import Images, read_images
from transfer.training.train import train

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


@dataclass(frozen=True)
class CourseNetwork:
    """A network, its training settings, and its reported accuracies: (domain, object) of each run."""

    config: ScratchConfig
    reported: tuple[tuple[float, float], ...] = ()

    def name(self, inputs: str) -> str:
        """Return a name such as ``[64,32,10] adam 0.0001 raw``."""
        network = self.config.network
        sizes = ",".join(map(str, network.hidden))
        kind = "" if network.network == "mlp" else f"{network.network} "
        return f"{kind}[{sizes}] {self.config.optimizer} {self.config.lr:g} {inputs}"


def _mlp(hidden: tuple[int, ...], optimizer: Any, lr: float, epochs: int) -> ScratchConfig:
    return ScratchConfig(NetworkConfig(hidden=hidden), optimizer=optimizer, lr=lr, epochs=epochs)


_CNN = NetworkConfig("cnn", (16, 32, 64), initialisation="he", batch_norm=True)
ROWS = {
    1: CourseNetwork(_mlp((10,), "sgd", 1e-3, 20), ((0.661, 0.048),)),
    2: CourseNetwork(_mlp((32, 10), "sgd", 1e-3, 35), ((0.661, 0.032),)),
    3: CourseNetwork(_mlp((64, 32, 10), "sgd", 1e-3, 50), ((0.824, 0.243),)),
    4: CourseNetwork(_mlp((64, 32, 10), "sgd", 1e-4, 50), ((0.867, 0.197),)),
    5: CourseNetwork(_mlp((64, 32, 10), "adam", 1e-4, 50), ((0.878, 0.246), (0.867, 0.243))),
    6: CourseNetwork(ScratchConfig(_CNN, optimizer="adam", lr=1e-3, epochs=20, batch_size=32)),
}
SGD, ADAM = 4, 5  # rows that differ only in the optimizer


def run_course(config: CourseConfig) -> dict[str, Any]:
    """Train the networks of the rows for each input scaling and seed, and transfer on the same splits.

    Returns
    -------
    dict
        ``runs``: for each row and input ``row``, ``name``, ``inputs``, ``reported`` and the result of every seed;
        ``paired``: Adam minus SGD, by input and head; ``transfer``: the result of each policy;
        ``config``, ``versions``, ``seconds``.

    Raises
    ------
    TransferError
        Bad input; a folder that cannot be used.
    """
    started = time.perf_counter()
    folder = RunFolder(config.out, to_dict(config), overwrite=config.overwrite) if config.out else None
    cache = TrunkCache()
    images = read_images(config.data, cache.disk_cache)
    sets = load_pixel_sets(config.data, images, ScratchConfig().side, config.seeds, cache.disk_cache)
    runs = []
    for inputs in config.inputs:
        for number in config.rows:
            row = ROWS[number]
            settings: dict[str, Any] = {"inputs": inputs, "device": config.device}
            run_config = replace(row.config, epochs=config.epochs or row.config.epochs, **settings)
            name = row.name(inputs)
            seeds = [train_from_scratch(run_config, sets[seed], name=name, seed=seed) for seed in config.seeds]
            runs.append({"row": number, "name": name, "inputs": inputs, "reported": row.reported, "seeds": seeds})
    result = {
        "command": "course",
        "config": to_dict(config),
        "versions": get_versions(),
        "runs": runs,
        "paired": compare_adam_with_sgd(runs),
        "transfer": _run_transfer(config, images, cache),
    }
    result["seconds"] = {"total": round(time.perf_counter() - started, 3)}
    if folder:
        folder.write_result(result)
    return result


def compare_adam_with_sgd(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by input and head the accuracy of Adam minus that of SGD, paired by seed."""
    seeds = {(run["inputs"], run["row"]): run["seeds"] for run in runs}
    paired: dict[str, dict[str, dict[str, Any]]] = {}
    for inputs, number in seeds:
        if number == ADAM and (inputs, SGD) in seeds:
            adam, sgd = seeds[inputs, ADAM], seeds[inputs, SGD]
            heads = [head for head in HEADS if "accuracy" in sgd[0]["test"].get(head, {})]
            paired[inputs] = {head: compare_by_seed(_accuracies(adam, head), _accuracies(sgd, head)) for head in heads}
    return paired


def compare_by_seed(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Return the mean of ``a - b`` and its 95 % t-interval over seeds, None for a single seed.

    Examples
    --------
    >>> compare_by_seed([0.25, 0.24, 0.26], [0.20, 0.20, 0.20])
    {'difference': 0.05, 'interval': [0.025159, 0.074841]}
    """
    differences = np.subtract(a, b)
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return {"difference": round(mean, 6), "interval": None}
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5)
    return {"difference": round(mean, 6), "interval": [round(mean - half, 6), round(mean + half, 6)]}


def course_text(result: dict[str, Any]) -> str:
    """Return the table of :func:`run_course` (reported, measured, transfer), collapsed runs, and Adam minus SGD."""
    rows = []
    for run in result["runs"]:
        reported = [" or ".join(f"{pair[i]:.3f}" for pair in run["reported"]) or "-" for i in range(len(HEADS))]
        measured = average_seeds(run["seeds"])
        seconds = fmean(seed["seconds"]["epoch"] for seed in run["seeds"])
        rows.append(
            [run["name"], *_interleave(reported, [score_text(measured, head) for head in HEADS]), f"{seconds:.2f}"]
        )
    backbone = result["config"]["backbone"]["backbone"]
    for policy, run in result["transfer"].items():
        rows.append([f"{backbone} {policy}", *_interleave(["-", "-"], [score_text(run, head) for head in HEADS]), "-"])
    heads = [f"{head}{kind}" for head in HEADS for kind in (", reported", "")]
    parts = [text_table(["network", *heads, "seconds per epoch"], rows), *_collapse_lines(result["runs"])]
    for inputs, paired in result["paired"].items():
        differences = [f"{head} {_difference_text(difference)}" for head, difference in paired.items()]
        parts.append(f"Adam - SGD, {inputs} pixels, paired by seed: {', '.join(differences)}")
    return "\n\n".join(parts)


def has_collapsed(run: dict[str, Any]) -> bool:
    """Return whether a run predicts the same for every image, or has a loss that is not finite."""
    return run["layers"]["end"][-1]["dead"] == 1 or not math.isfinite(run["epochs"][-1]["loss"])


def average_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the test result of a single run; of several, mean and standard deviation of each head's accuracy."""
    if len(runs) == 1:
        return {"test": runs[0]["test"]}
    values = {head: _accuracies(runs, head) for head in HEADS if "accuracy" in runs[0]["test"].get(head, {})}
    return {
        "test": {head: {"accuracy": fmean(by_seed)} for head, by_seed in values.items()},
        "sd": {"test": {head: {"accuracy": stdev(by_seed)} for head, by_seed in values.items()}},
    }


def _collapse_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each network that collapsed under a seed, with the accuracies of its other seeds."""
    lines = []
    for run in runs:
        intact = [seed for seed in run["seeds"] if not has_collapsed(seed)]
        if len(intact) < len(run["seeds"]):
            line = f"{run['name']}: {len(run['seeds']) - len(intact)} of {len(run['seeds'])} collapsed"
            average = average_seeds(intact) if intact else {}
            others = ", ".join(f"{head} {score_text(average, head)}" for head in HEADS)
            lines.append(line + (f"; the others: {others}" if intact else ""))
    return ["\n".join(lines)] if lines else []


def _run_transfer(config: CourseConfig, images: Images, cache: TrunkCache) -> dict[str, Any]:
    results = {}
    for policy in config.policies:
        log.info("transfer: %s, %s", config.backbone.backbone, policy)
        train_config = TrainConfig(
            config.data,
            config.backbone,
            policy=PolicyConfig(policy),
            learn=LearnConfig(device=config.device),
            run=RunConfig(seeds=config.seeds),
        )
        results[policy] = train(train_config, images=images, cache=cache).result
    return results


def _accuracies(runs: Sequence[dict[str, Any]], head: str) -> list[float]:
    return [run["test"][head]["accuracy"] for run in runs]


def _interleave(reported: Sequence[str], measured: Sequence[str]) -> list[str]:
    return [cell for pair in zip(reported, measured, strict=True) for cell in pair]


def _difference_text(paired: dict[str, Any]) -> str:
    low, high = paired["interval"] or (None, None)
    return f"{paired['difference']:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")
