"""Greedy soups: of several runs, average those whose weights together score best on validation images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from transfer.config.train import ViewConfig
from transfer.data.duplicates import inspect_files
from transfer.data.sets.load import load_table
from transfer.errors import TransferError
from transfer.evaluation.aligned_labels import align_labels, format_column_targets
from transfer.evaluation.averages.ensemble import TestSet
from transfer.evaluation.averages.soup import average_weights
from transfer.evaluation.predict import PREDICTED_AT_ONCE
from transfer.evaluation.predictions import evaluate_predictions, main_scores
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.runs.checkpoint import Models
from transfer.runs.folder import IMAGES_FILE
from transfer.runs.image_list import read_image_list
from transfer.runtime.files import read_json


@dataclass(frozen=True)
class GreedyChoice:
    """The runs of a greedy soup, by number, in the order in which they were added."""

    chosen: tuple[int, ...]
    alone: tuple[float, ...]  # the validation score of each run
    score: float  # of the soup

    def record(self, runs: Sequence[Path]) -> dict[str, Any]:
        """Return what the result of `transfer evaluate` says of the choice."""
        return {
            "note": self.describe(runs),
            "runs": [str(runs[i]) for i in self.chosen],
            "validation": round(self.score, 6),
            "validation_alone": {str(run): round(score, 6) for run, score in zip(runs, self.alone, strict=True)},
        }

    def describe(self, runs: Sequence[Path]) -> str:
        """Return the choice as a note."""
        named = ", ".join(str(runs[i]) for i in self.chosen)
        best = max(self.alone)
        if len(self.chosen) == 1:
            return f"greedy soup: no average is as good on validation images as {named} alone ({best:.3f})"
        return (
            f"greedy soup: the weights of {len(self.chosen)} of {len(runs)} runs are averaged ({named}); "
            f"score on validation images {self.score:.3f}, of the best run alone {best:.3f}"
        )


def choose_greedily(alone: Sequence[float], measure: Callable[[Sequence[int]], float]) -> GreedyChoice:
    """Return the members of a greedy soup.

    Parameters
    ----------
    alone : sequence of float
        The validation score of each member, not empty.
    measure : callable
        Returns the validation score of the average of the members of these numbers.

    Notes
    -----
    Members are tried from the best to the worst, and one stays if the score of the average does not fall.

    References
    ----------
    M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time", 2022, recipe 1.

    Examples
    --------
    >>> values = [0.80, 0.86, 0.70]
    >>> choose_greedily(values, lambda members: sum(values[i] for i in members) / len(members) + 0.05).chosen
    (1, 0)
    """
    first, *others = sorted(range(len(alone)), key=lambda i: -alone[i])  # of equal ones the first given
    chosen, best = [first], alone[first]
    for i in others:
        score = measure([*chosen, i])
        if score >= best:
            chosen, best = [*chosen, i], score
    return GreedyChoice(tuple(chosen), tuple(alone), best)


def cook_greedily(
    runs: Sequence[Path], members: Sequence[Models], load: Callable[[Path], Models], cache: TrunkCache
) -> tuple[Models, GreedyChoice]:
    """Return the greedy soup of `runs`, and the choice.

    Parameters
    ----------
    runs : sequence of Path
        Run folders of one split.
    members : sequence of dict of str to TransferModel
        Their models, which stay as they are.
    load : callable
        Loads the models of a run once more, to be overwritten.
    cache : TrunkCache
        Features of frozen layers.

    Raises
    ------
    TransferError
        The runs have different validation images, none, or were trained on them too (``--refit``).
    """
    specs = [spec for model in members[0].values() for spec in model.heads.specs.values()]
    test_set = _load_validation(runs, specs, cache)
    counted = {spec.name: spec for spec in specs if spec.weight}

    def score(models: Models) -> float:
        reports = evaluate_predictions(test_set.table, test_set.predict(models), intervals=False)
        return fmean(main_scores({name: reports[name] for name in counted}, counted).values())

    def average(chosen: Sequence[int]) -> Models:
        base = load(runs[chosen[0]])
        return average_weights([runs[i] for i in chosen], [base, *(members[i] for i in chosen[1:])])

    choice = choose_greedily([score(models) for models in members], lambda chosen: score(average(chosen)))
    return average(choice.chosen), choice


def _load_validation(runs: Sequence[Path], specs: Sequence[HeadSpec], cache: TrunkCache) -> TestSet:
    """Return the validation images that all runs share."""
    folders = [run if run.is_dir() else run.parent for run in runs]
    first, *others = ({line["path"] for line in read_image_list(run) if line["split"] == "val"} for run in folders)
    for run, images in zip(runs[1:], others, strict=True):
        if images != first:
            raise TransferError(
                f"a greedy soup chooses on validation images, and {run} has others than {runs[0]}: train them on one "
                "split (--split-seed)"
            )
    if not first:
        raise TransferError(
            f"a greedy soup chooses on validation images, and {runs[0]} has none: take --soup-kind uniform"
        )
    for run, folder in zip(runs, folders, strict=True):
        if _was_refitted(folder):
            raise TransferError(
                f"a greedy soup chooses on validation images, and {run} was refitted on them: train it with --no-refit"
            )
    table = load_table(str(folders[0] / IMAGES_FILE), targets=format_column_targets(specs))
    table = align_labels(table.take(np.flatnonzero(table.split == "val")), specs)
    digests = inspect_files(table, disk_cache=cache.disk_cache).sha256
    return TestSet(table, digests, np.arange(len(table)), cache, ViewConfig(), PREDICTED_AT_ONCE)


def _was_refitted(folder: Path) -> bool:
    """Return whether the run was trained on its validation images in the end; by default a solved probe is."""
    result = read_json(folder / "result.json")
    refit = result.get("config", {}).get("learn", {}).get("refit")
    policy = result.get("policy", {})
    return bool(policy.get("trained_parameters") == policy.get("heads_parameters") if refit is None else refit)
