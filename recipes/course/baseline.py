"""The networks of the course: what was reported of each, what is measured here, and transfer on the same images."""

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
from course.pixels import pixel_sets
from course.trainer import HEADS, learn
from transfer.config.serialise import to_dict
from transfer.config.train import LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.feature_cache import TrunkCache
from transfer.report.text import score_text, text_table
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions
from transfer.training.setup import Images, read_images
from transfer.training.train import train

log = logging.getLogger(f"transfer.{__name__}")  # printed as the lines of the command are


@dataclass(frozen=True)
class Row:
    """A network, how it learns, and the accuracies reported of it: (domain, object) of each run."""

    config: ScratchConfig
    reported: tuple[tuple[float, float], ...] = ()

    def name(self, inputs: str) -> str:
        """Return what to call it, such as ``[64,32,10] adam 0.0001 raw``."""
        network = self.config.network
        sizes = ",".join(map(str, network.hidden))
        kind = "" if network.network == "mlp" else f"{network.network} "
        return f"{kind}[{sizes}] {self.config.optimizer} {self.config.lr:g} {inputs}"


def _mlp(hidden: tuple[int, ...], optimizer: Any, lr: float, epochs: int) -> ScratchConfig:
    return ScratchConfig(NetworkConfig(hidden=hidden), optimizer=optimizer, lr=lr, epochs=epochs)


_CNN = NetworkConfig("cnn", (16, 32, 64), initialisation="he", batch_norm=True)
ROWS = {
    1: Row(_mlp((10,), "sgd", 1e-3, 20), ((0.661, 0.048),)),
    2: Row(_mlp((32, 10), "sgd", 1e-3, 35), ((0.661, 0.032),)),
    3: Row(_mlp((64, 32, 10), "sgd", 1e-3, 50), ((0.824, 0.243),)),
    4: Row(_mlp((64, 32, 10), "sgd", 1e-4, 50), ((0.867, 0.197),)),
    5: Row(_mlp((64, 32, 10), "adam", 1e-4, 50), ((0.878, 0.246), (0.867, 0.243))),
    6: Row(ScratchConfig(_CNN, optimizer="adam", lr=1e-3, epochs=20, batch_size=32)),
}
SGD, ADAM = 4, 5  # the rows that differ in the optimizer alone


def course(config: CourseConfig) -> dict[str, Any]:
    """Run the rows, for each kind of input and seed, and transfer on the same splits; return all results.

    Returns
    -------
    dict
        ``runs``: for each row and input ``row``, ``name``, ``inputs``, ``reported`` and the result of every seed;
        ``paired``: Adam less SGD, by input and head; ``transfer``: each policy's result; ``config``, ``versions``,
        ``seconds``.

    Raises
    ------
    TransferError
        Bad input; a folder that cannot be used.
    """
    began = time.perf_counter()
    folder = RunFolder(config.out, to_dict(config), overwrite=config.overwrite) if config.out else None
    cache = TrunkCache()
    images = read_images(config.data, cache.disk_cache)
    sets = pixel_sets(config.data, images, ScratchConfig().side, config.seeds, cache.disk_cache)
    runs = []
    for inputs in config.inputs:
        for number in config.rows:
            row = ROWS[number]
            how: dict[str, Any] = {"inputs": inputs, "device": config.device}
            one = replace(row.config, epochs=config.epochs or row.config.epochs, **how)
            seeds = [learn(one, sets[seed], name=row.name(inputs), seed=seed) for seed in config.seeds]
            runs.append(
                {"row": number, "name": row.name(inputs), "inputs": inputs, "reported": row.reported, "seeds": seeds}
            )
    result = {
        "command": "course",
        "config": to_dict(config),
        "versions": get_versions(),
        "runs": runs,
        "paired": adam_less_sgd(runs),
        "transfer": _transfer(config, images, cache),
    }
    result["seconds"] = {"total": round(time.perf_counter() - began, 3)}
    if folder:
        folder.write_result(result)
    return result


def adam_less_sgd(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by input and head how much more Adam gets right than SGD, over the seeds of both."""
    both = {(run["inputs"], run["row"]): run["seeds"] for run in runs}
    paired: dict[str, dict[str, dict[str, Any]]] = {}
    for inputs, number in both:
        if number == ADAM and (inputs, SGD) in both:
            adam, sgd = both[inputs, ADAM], both[inputs, SGD]
            heads = [head for head in HEADS if "accuracy" in sgd[0]["test"].get(head, {})]
            paired[inputs] = {head: paired_by_seed(_accuracies(adam, head), _accuracies(sgd, head)) for head in heads}
    return paired


def paired_by_seed(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Return the mean of ``a - b`` and its 95 % t-interval over seeds, None for a single one.

    Examples
    --------
    >>> paired_by_seed([0.25, 0.24, 0.26], [0.20, 0.20, 0.20])
    {'difference': 0.05, 'interval': [0.025159, 0.074841]}
    """
    differences = np.subtract(a, b)
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return {"difference": round(mean, 6), "interval": None}
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5)
    return {"difference": round(mean, 6), "interval": [round(mean - half, 6), round(mean + half, 6)]}


def beside(result: dict[str, Any]) -> str:
    """Return what :func:`course` found as a table, reported beside measured beside transfer, and Adam less SGD."""
    rows = []
    for run in result["runs"]:
        reported = [" or ".join(f"{pair[i]:.3f}" for pair in run["reported"]) or "-" for i in range(len(HEADS))]
        measured = mean_and_sd(run["seeds"])
        each = fmean(seed["seconds"]["epoch"] for seed in run["seeds"])
        rows.append([run["name"], *_woven(reported, [score_text(measured, head) for head in HEADS]), f"{each:.2f}"])
    backbone = result["config"]["backbone"]["backbone"]
    for policy, run in result["transfer"].items():
        rows.append([f"{backbone} {policy}", *_woven(["-", "-"], [score_text(run, head) for head in HEADS]), "-"])
    heads = [f"{head}{kind}" for head in HEADS for kind in (", reported", "")]
    parts = [text_table(["network", *heads, "seconds an epoch"], rows), *_collapses(result["runs"])]
    for inputs, paired in result["paired"].items():
        said = [f"{head} {_with_interval(difference)}" for head, difference in paired.items()]
        parts.append(f"Adam less SGD, {inputs} pixels, paired by seed: {', '.join(said)}")
    return "\n\n".join(parts)


def collapsed(run: dict[str, Any]) -> bool:
    """Return whether a run gives the same answer whatever the image, or none that is a number."""
    return run["layers"]["end"][-1]["dead"] == 1 or not math.isfinite(run["epochs"][-1]["loss"])


def mean_and_sd(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the test of a single run as it is, of several the mean and standard deviation of each head's accuracy."""
    if len(runs) == 1:
        return {"test": runs[0]["test"]}
    values = {head: _accuracies(runs, head) for head in HEADS if "accuracy" in runs[0]["test"].get(head, {})}
    return {
        "test": {head: {"accuracy": fmean(each)} for head, each in values.items()},
        "sd": {"test": {head: {"accuracy": stdev(each)} for head, each in values.items()}},
    }


def _collapses(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each network that collapsed under some seed, with the accuracies of those that did not."""
    lines = []
    for run in runs:
        alive = [seed for seed in run["seeds"] if not collapsed(seed)]
        if len(alive) < len(run["seeds"]):
            fell = f"{run['name']}: {len(run['seeds']) - len(alive)} of {len(run['seeds'])} collapsed"
            rest = mean_and_sd(alive) if alive else {}
            others = ", ".join(f"{head} {score_text(rest, head)}" for head in HEADS)
            lines.append(fell + (f"; the others: {others}" if alive else ""))
    return ["\n".join(lines)] if lines else []


def _transfer(config: CourseConfig, images: Images, cache: TrunkCache) -> dict[str, Any]:
    results = {}
    for policy in config.policies:
        log.info("transfer: %s, %s", config.backbone.backbone, policy)
        one = TrainConfig(
            config.data,
            config.backbone,
            policy=PolicyConfig(policy),
            learn=LearnConfig(device=config.device),
            run=RunConfig(seeds=config.seeds),
        )
        results[policy] = train(one, images=images, cache=cache).result
    return results


def _accuracies(runs: Sequence[dict[str, Any]], head: str) -> list[float]:
    return [run["test"][head]["accuracy"] for run in runs]


def _woven(reported: Sequence[str], measured: Sequence[str]) -> list[str]:
    return [cell for pair in zip(reported, measured, strict=True) for cell in pair]


def _with_interval(paired: dict[str, Any]) -> str:
    low, high = paired["interval"] or (None, None)
    return f"{paired['difference']:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")
