"""`transfer compare`: several policies on one split, one table, each tested against the first."""

import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from transfer.config.serialise import to_dict
from transfer.config.train import CompareConfig, PolicyConfig
from transfer.errors import TransferError
from transfer.evaluation.paired import compare_precision, paired_test
from transfer.evaluation.predictions import decide
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePolicy
from transfer.heads import find_head_kind
from transfer.runs.facts import list_left_out
from transfer.runs.folder import RunFolder
from transfer.runtime import distributed
from transfer.runtime.device import get_versions
from transfer.runtime.time_limit import TimeLimit
from transfer.training.results import TrainRun
from transfer.training.setup import read_images
from transfer.training.train import train


def compare(config: CompareConfig) -> dict[str, Any]:
    """Train under each policy on the same splits; return all results and paired tests against the first.

    Bad input, or a run folder that cannot be used, raises a TransferError.
    """
    started = time.perf_counter()
    if config.train.policy.policy != PolicyConfig().policy:
        raise TransferError("compare takes several policies: --policies A,B rather than --policy")
    policies = [str(FreezePolicy.parse(text)) for text in config.policies]
    shared = config.train
    out, folder = shared.run.out, None
    if out and distributed.is_rank_zero():
        folder = RunFolder(out, to_dict(config), overwrite=shared.run.overwrite, resume=shared.run.resume)
    cache = TrunkCache(shared.cache)
    images = read_images(shared.data, cache.disk_cache)
    runs: dict[str, TrainRun] = {}
    limit = TimeLimit.after(shared.learn.minutes)
    shared = replace(shared, learn=replace(shared.learn, minutes=None))
    for number, text in enumerate(policies):
        inner = replace(shared.run, out=out / text.replace(":", "-") if out else None)
        changed = replace(shared, policy=replace(shared.policy, policy=text), run=inner)
        runs[text] = train(changed, images=images, cache=cache, limit=limit.share(1 / (len(policies) - number)))
    first = runs[policies[0]]
    result = {
        "command": "compare",
        "config": to_dict(config),
        "versions": get_versions(),
        "seconds": {"total": round(time.perf_counter() - started, 3)},
        "runs": {text: run.result for text, run in runs.items()},
        "paired": {text: compare_runs(runs[text], first) for text in policies[1:]},
        "against": policies[0],
        "best": choose_by_validation({text: run.result for text, run in runs.items()}),
    }
    if folder:
        folder.write_left_out(list_left_out(images.table))
        folder.write_result(result)
    return result


def choose_by_validation(results: Mapping[str, dict[str, Any]]) -> str | None:
    """Return which of `results` has the highest mean validation score over heads and seeds; None if one has none."""
    scores: dict[str, float] = {}
    for name, result in results.items():
        found = [score for seed in result.get("seeds", [result]) for score in seed.get("validation", {}).values()]
        if not found:
            return None
        scores[name] = fmean(found)
    return max(scores, key=lambda name: scores[name])


def compare_runs(run: TrainRun, other: TrainRun) -> dict[str, Any]:
    """Return for each head a paired test of `run` against `other` on the test images that they share (all seeds).

    Heads of several labels an image are compared by mean average precision, others by accuracy.
    """
    tests: dict[str, Any] = {}
    for name in run.tests[0][1]:
        if run.tests[0][0].targets[name].values.ndim == 2:
            tests |= _compare_labels(run, other, name)
            continue
        (correct, images), (reference, _) = correct_predictions(run, name), correct_predictions(other, name)
        if len(correct):
            tests[name] = paired_test(correct, reference, images)
    return tests


def _compare_labels(run: TrainRun, other: TrainRun, head: str) -> dict[str, Any]:
    """Return the paired test of a head of several labels by its name; nothing without a labelled test image."""
    parts, images = [], []
    for (table, predictions), (_, others) in zip(run.tests, other.tests, strict=True):
        target = table.targets[head]
        known = target.known
        if (target.values[known] == 1).any():
            parts.append((target.values[known], predictions[head][known], others[head][known]))
            images.append(table.paths[known])
    return {head: compare_precision(parts, images)} if parts else {}


def correct_predictions(run: TrainRun, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each labelled test image of all seeds was classified correctly, and its path."""
    correct, images = [np.empty(0)], [np.empty(0, str)]
    for table, predictions in run.tests:
        target = table.targets[head]
        if find_head_kind(target.kind).has_classes:
            correct.append((decide(target, predictions[head]) == target.values)[target.known].astype(float))
            images.append(table.paths[target.known])
    return np.concatenate(correct), np.concatenate(images)
