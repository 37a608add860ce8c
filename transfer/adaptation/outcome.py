"""What an adaptation gives back, and one result of several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from transfer.adaptation import diagnostics
from transfer.config.adapt import AdaptConfig
from transfer.config.serialise import to_dict
from transfer.data.table import ImageTable
from transfer.evaluation.predictions import Predictions
from transfer.runs import checkpoint
from transfer.runs.seeds import merge_seeds


@dataclass
class AdaptRun:
    """What `adapt` gives back.

    Parameters
    ----------
    result : dict
        As in result.json.
    models : dict of str to TransferModel
        Of the first seed: ``models[""]`` answers for target images.
    tests : list of (ImageTable, Predictions)
        For each seed the target's test images, with their true labels, and the answers on them.
    before : list of ndarray
        For each seed the classes that source_only gave these images, int64. Of a resumed run that was done already
        neither `tests` nor `before` is there.
    """

    result: dict[str, Any]
    models: checkpoint.Models
    tests: list[tuple[ImageTable, Predictions]]
    before: list[np.ndarray]


def together(config: AdaptConfig, runs: Sequence[AdaptRun]) -> dict[str, Any]:
    """Return the result of `config`, whose seeds' are `runs`: means, deviations, and each."""
    results = [run.result for run in runs]
    merged = merge_seeds(config.run.seeds, results, ("target", "source_only", "shift")) | {"config": to_dict(config)}
    merged["shift"] |= diagnostics.merge_shift_flags([result["shift"] for result in results])
    merged |= diagnostics.compare_with_source_only([run.tests[0] for run in runs], [run.before[0] for run in runs])
    chosen = [result["selection"] for result in results]
    oracle = [some["oracle_accuracy"] for some in chosen]
    merged["selection"] = {
        "rule": config.method.rule,
        "chosen": [some["chosen"] for some in chosen],
        "oracle_accuracy": fmean(oracle) if None not in oracle else None,
    }
    return merged
