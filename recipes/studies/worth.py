"""What pretraining is worth: policies beside the same network from scratch, by number of labels and by seconds."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transfer.config.commands import WorthConfig
from transfer.config.serialise import to_dict
from transfer.config.train import PolicyConfig, RunConfig
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.runs.folder import RunFolder, refuse_resume
from transfer.runtime.device import get_versions
from transfer.training.setup import read_images
from transfer.training.train import train

SCRATCH = "scratch"

log = logging.getLogger(f"transfer.{__name__}")  # printed as the lines of the command are


class Stopwatch:
    """Validation accuracy of one head by seconds since now: an `on_epoch` of :func:`transfer.training.train.train`.

    Unlike the epochs' own seconds these hold all that a run does on the way, the frozen trunk included.

    Parameters
    ----------
    head : str
    clock : callable
        Returns seconds.

    Attributes
    ----------
    points : dict of float to float
        Accuracy by seconds: a point per epoch, one for a solved phase.

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
        self.began = clock()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Take the time of an epoch's line, if it has been validated."""
        if "strength" not in line and self.head in line.get("val", {}):  # strengths are on the way to a solution
            self.points[self.clock() - self.began] = line["val"][self.head]


def worth(config: WorthConfig) -> dict[str, Any]:
    """Train from scratch and under each policy, with each number of labels and each seed.

    Runs with the most labels are what is timed: each has an empty cache of its own, so that none gets for nothing what
    another has computed. All others share what their frozen trunks put out.

    Returns
    -------
    dict
        ``runs``: a record each with ``policy``, ``labels`` (0: all), ``seed``, ``images`` (to learn from and to
        validate on), ``object`` (accuracy on the test images) and ``course``, the validation accuracy by seconds as
        two lists, ``seconds`` and ``object``. Fewest labels first, scratch before the others. Besides these
        ``command``, ``config``, ``versions`` and ``seconds``. Where `config` names a folder, each record is written
        there as soon as it is known.

    Raises
    ------
    TransferError
        Bad input; a folder that cannot be used.
    """
    began, base = time.perf_counter(), config.train
    if base.data.shots or base.policy.policy != PolicyConfig().policy:
        raise TransferError("several of each are compared: --labels A,B not --shots, --policies A,B not --policy")
    policies = dict.fromkeys([SCRATCH, *(str(FreezePolicy.parse(text)) for text in config.policies)])
    labels = sorted(set(config.labels), key=lambda few: few or math.inf)
    refuse_resume(base.run, "worth")
    folder = RunFolder(base.run.out, to_dict(config), overwrite=base.run.overwrite) if base.run.out else None
    cache, runs = TrunkCache(base.cache), []
    images = read_images(base.data, cache.disk_cache)
    for few, policy, seed in itertools.product(labels, policies, base.run.seeds or (base.run.seed,)):
        log.info("%s, %s labels a class and domain, seed %d", policy, few or "all", seed)
        scratch = FreezePolicy.parse(policy).from_scratch
        own: dict[str, Any] = {"lr": config.scratch_lr, "epochs": config.scratch_epochs} if scratch else {}
        one = replace(
            base,
            data=replace(base.data, shots=few or None),
            policy=replace(base.policy, policy=policy),
            learn=replace(base.learn, **own),
            run=RunConfig(seed=seed),
        )
        with TemporaryDirectory(ignore_cleanup_errors=True) as empty:
            cold = few == labels[-1] and base.cache.cache
            watch = Stopwatch()
            shared = TrunkCache(base.cache, DiskCache(Path(empty))) if cold else cache
            result = train(one, images=images, cache=shared, on_epoch=watch).result
        if not result["test"]:
            raise TransferError("no test images to measure accuracy on: give --test a fraction")
        record = {"policy": policy, "labels": few, "seed": seed}
        record["images"] = result["images"]["train"] + result["images"]["val"]
        record["object"] = result["test"]["object"]["accuracy"]
        course = {"seconds": list(watch.points), "object": list(watch.points.values())}
        runs.append(record | {"course": course})
        if folder:
            folder.append_metrics(runs[-1])
    seconds = {"total": round(time.perf_counter() - began, 3)}
    head = {"command": "worth", "config": to_dict(config), "versions": get_versions(), "seconds": seconds}
    result = head | {"runs": runs}
    if folder:
        folder.write_result(result)
    return result
