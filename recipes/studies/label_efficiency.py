"""Label-efficiency study: policies against training from scratch, by number of labels and by seconds."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transfer.config.checked import Config
from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import AtLeastOne, NotNegative, Positive
from transfer.config.serialise import to_dict
from transfer.config.train import LearnConfig, PolicyConfig, RunConfig, TrainConfig
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.runs.folder import RunFolder
from transfer.runtime.device import get_versions
from transfer.training.setup import Images, read_images
from transfer.training.train import train

SCRATCH = "scratch"

log = logging.getLogger(f"transfer.{__name__}")  # printed as the command's own log lines are


def _equal_training() -> TrainConfig:
    # All policies train on the same images for the same number of epochs.
    return TrainConfig(learn=LearnConfig(refit=False, patience=0))


@dataclass(frozen=True)
class LabelEfficiencyConfig(Config):
    """Label-efficiency study: policies against training from scratch, by number of labels and by seconds."""

    train: TrainConfig = field(default_factory=_equal_training)
    label_counts: NotNegative[CommaInts] = (1, 2, 5, 10, 20, 0)
    """Labels per class and domain, such as 5,20,0, where 0 means all. Runs with the most labels are timed."""
    policies: CommaNames = ("linear_probe", "partial", "full", "lp_ft", "gradual", "gradual:bottom_up")
    """Policies that are compared with training from scratch."""
    scratch_lr: Positive[float] = 1e-2
    """Learning rate of training from scratch."""
    scratch_epochs: AtLeastOne[int] = 60
    """Epochs of training from scratch."""


class Stopwatch:
    """Record one head's validation accuracy by elapsed seconds: an `on_epoch` of :func:`transfer.training.train.train`.

    Unlike the seconds that a run records per epoch, these include all work of the run, such as the frozen trunk.

    Parameters
    ----------
    head : str
    clock : callable
        Returns seconds.

    Attributes
    ----------
    points : dict of float to float
        Accuracy by seconds: a point per epoch, and one for a solved phase.

    Examples
    --------
    >>> ticks = iter([100.0, 102.5])
    >>> watch = Stopwatch("object", clock=lambda: next(ticks))
    >>> watch({"phase": "full", "epoch": 1, "val": {"object": 0.5}})
    >>> watch.points
    {2.5: 0.5}
    """

    def __init__(self, head: str = "object", clock: Callable[[], float] = time.perf_counter) -> None:
        self.head, self.clock = head, clock
        self.points: dict[float, float] = {}
        self.started = clock()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Record the accuracy of an epoch's log line if the epoch was validated."""
        # A line with a "strength" is an intermediate step of solving a probe.
        if "strength" not in line and self.head in line.get("val", {}):
            self.points[self.clock() - self.started] = line["val"][self.head]


def run_label_efficiency(config: LabelEfficiencyConfig) -> dict[str, Any]:
    """Train from scratch and under each policy, for each number of labels and each seed.

    The runs with the most labels are timed. Each of them has an empty cache of its own, so that no run reuses what
    another computed. All other runs share their frozen features.

    Returns
    -------
    dict
        ``runs``: one record per run with ``policy``, ``labels`` (0: all), ``seed``, ``images`` (number of training and
        validation images), ``object`` (test accuracy) and ``course``, the validation accuracy by seconds as two lists,
        ``seconds`` and ``object``. Fewest labels first, and scratch before the policies. Also ``command``, ``config``,
        ``versions`` and ``seconds``. If `config` names a folder, each record is written there when its run ends.

    Raises
    ------
    TransferError
        Bad input; a folder that cannot be used.
    """
    started, base = time.perf_counter(), config.train
    if base.data.shots or base.policy.policy != PolicyConfig().policy:
        raise TransferError(
            "the study varies labels and policies: give --label-counts A,B not --shots, and --policies A,B not --policy"
        )
    policies = dict.fromkeys([SCRATCH, *(str(FreezePolicy.parse(text)) for text in config.policies)])
    labels = sorted(set(config.label_counts), key=lambda count: count or math.inf)
    if base.run.resume:
        raise TransferError("--resume: this study always starts from its beginning; give --overwrite to run it again")
    folder = RunFolder(base.run.out, to_dict(config), overwrite=base.run.overwrite) if base.run.out else None
    cache, runs = TrunkCache(base.cache), []
    images = read_images(base.data, cache.disk_cache)
    for count, policy, seed in itertools.product(labels, policies, base.run.seeds or (base.run.seed,)):
        log.info("%s, %s labels per class and domain, seed %d", policy, count or "all", seed)
        timed = count == labels[-1] and base.cache.cache
        runs.append(_train_and_record(config, policy, count, seed, images, None if timed else cache))
        if folder:
            folder.append_metrics(runs[-1])
    result = {
        "command": "worth",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - started, 3)},
        "runs": runs,
    }
    if folder:
        folder.write_result(result)
    return result


def _train_and_record(
    config: LabelEfficiencyConfig, policy: str, labels: int, seed: int, images: Images, cache: TrunkCache | None
) -> dict[str, Any]:
    """Return the record of one run; without a `cache` the run has an empty one of its own."""
    base = config.train
    from_scratch = FreezePolicy.parse(policy).from_scratch
    learn: dict[str, Any] = {"lr": config.scratch_lr, "epochs": config.scratch_epochs} if from_scratch else {}
    run_config = replace(
        base,
        data=replace(base.data, shots=labels or None),
        policy=replace(base.policy, policy=policy),
        learn=replace(base.learn, **learn),
        run=RunConfig(seed=seed),
    )
    with TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        watch = Stopwatch()
        cache = TrunkCache(base.cache, DiskCache(Path(empty))) if cache is None else cache
        result = train(run_config, images=images, cache=cache, on_epoch=watch).result
    if not result["test"]:
        raise TransferError("no test images to measure accuracy on: give --test a fraction")
    return {
        "policy": policy,
        "labels": labels,
        "seed": seed,
        "images": result["images"]["train"] + result["images"]["val"],
        "object": result["test"]["object"]["accuracy"],
        "course": {"seconds": list(watch.points), "object": list(watch.points.values())},
    }
