"""The guard of a warm start: epochs count only if old validation images are classified as well as before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any

import numpy as np

from transfer.config.train import ViewConfig
from transfer.data.table import ImageTable
from transfer.evaluation.aligned_labels import align_labels
from transfer.evaluation.averages.ensemble import TestSet
from transfer.evaluation.predictions import Predictions, evaluate_predictions, main_scores
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.model import TransferModel


@dataclass(frozen=True)
class Guard:
    """The validation rows that the old model had, too, and its scores on them by head."""

    rows: np.ndarray
    scores: Mapping[str, float]
    max_loss: float

    @property
    def before(self) -> float:
        """The old model's mean score."""
        return fmean(self.scores.values())

    def score(self, table: ImageTable, rows: np.ndarray, predictions: Predictions, model: TransferModel) -> float:
        """Return the mean score of `predictions` for `rows` of `table`, on those of the guard, over the same heads."""
        shared = np.isin(rows, self.rows)
        of_heads = {name: predictions[name][shared] for name in self.scores}
        return fmean(_score(table.take(rows[shared]), of_heads, model.heads.specs).values())

    @property
    def allowed(self) -> float:
        """How much may be lost: `max_loss`, or one standard error of the old score if that is larger."""
        before = min(max(self.before, 0.0), 1.0)
        return max(self.max_loss, sqrt(before * (1 - before) / len(self.rows)))

    def accepts(self, score: float) -> bool:
        """Return whether a model of this mean score has lost no more than is allowed."""
        return score >= self.before - self.allowed

    def record(self, lines: Sequence[Mapping[str, Any]], best: Sequence[Any]) -> dict[str, Any]:
        """Return what result.json says of a fit, from its `lines` and the `best` choice of each phase."""
        scored = [line for line in lines if "old_val" in line]
        return {
            "validation_images": len(self.rows),
            "before": round(self.before, 6),
            "allowed": round(self.allowed, 6),
            "after": _find_best(scored, best)["old_val"] if best else None,
            "highest": max((line["old_val"] for line in scored), default=None),
            "old_weights": not best,
        }


def make_guard(
    old: TransferModel,
    model: TransferModel,
    table: ImageTable,
    digests: np.ndarray,
    rows: np.ndarray,
    cache: TrunkCache,
    max_loss: float,
) -> Guard | None:
    """Return the guard of `model` for the validation `rows` of `table`; None without rows or heads in common.

    `digests` are the sha256 of all images. The old model's scores are computed here, as labels may be corrected.
    """
    specs = old.heads.specs
    names = [name for name, spec in model.heads.specs.items() if name in specs and spec.weight]
    if not len(rows) or not names:
        return None
    aligned = align_labels(table, list(specs.values()), own=True)
    predictions = TestSet(aligned, digests, rows, cache, ViewConfig(), batch_size=64).predict({"": old})
    scores = _score(aligned.take(rows), {name: predictions[name] for name in names}, specs)
    return Guard(rows, scores, max_loss) if scores else None


def _find_best(lines: Sequence[Mapping[str, Any]], best: Sequence[Any]) -> Mapping[str, Any]:
    """Return the line of the weights that are used: of the last phase in `best` the solution, or the epoch."""
    name = list(dict.fromkeys(line["phase"] for line in lines))[len(best) - 1]
    of_phase = [line for line in lines if line["phase"] == name]
    return of_phase[best[-1] - 1 if isinstance(best[-1], int) else -1]


def note_warm_start(guard: Guard | None, best: Sequence[Any]) -> list[str]:
    """Return a note on a warm start that has no guard, or whose `best` epochs are none; else none."""
    if guard is None:
        return ["warm start: there is no validation image of the old run, so what is lost on those is not tested"]
    if best:
        return []
    return [
        f"warm start: each epoch lost more than {guard.allowed:.3f} of the accuracy of {guard.before:.3f} on "
        f"{len(guard.rows)} old validation images: the old weights are used, and new classes are never predicted; a "
        "larger --max-loss or other --epochs may help"
    ]


def _score(table: ImageTable, predictions: Predictions, specs: Mapping[str, HeadSpec]) -> dict[str, float]:
    return main_scores(evaluate_predictions(table, predictions, intervals=False), specs)
