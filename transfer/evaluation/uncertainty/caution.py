"""Prediction sets and unknown scores beside predictions, and no prediction where confidence is too low."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from transfer.errors import TransferError
from transfer.evaluation.uncertainty.conformal import PredictionSets, pair_probabilities
from transfer.evaluation.uncertainty.record import PAIRS, Uncertainty
from transfer.evaluation.uncertainty.unknown import HEAD, UnknownScore
from transfer.heads import HeadSpec
from transfer.heads.heads import PAIR
from transfer.heads.kind import ClassHeadKind


@dataclass(frozen=True)
class Caution:
    """Adds prediction sets and unknown scores to predictions, and withholds some; made by :func:`choose_caution`."""

    sets: Mapping[str, PredictionSets] = field(default_factory=dict)
    coverage: float = 0.0
    min_confidence: float = 0.0
    unknown: UnknownScore | None = None
    max_unknown: float = 1.0

    def complete(
        self,
        rows: Sequence[dict[str, Any]],
        specs: Mapping[str, HeadSpec],
        predictions: Mapping[str, np.ndarray],
        strangeness: np.ndarray | None = None,
    ) -> None:
        """Add ``NAME_set`` of each head to `rows`, the likeliest class first, and the set of (object, domain) pairs.

        A class whose probability is below `min_confidence` becomes None. `predictions` (N, ...) are those of all heads
        `specs` for the same images. `strangeness` (N,), rates of `unknown`, is added as ``object_unknown``; above
        `max_unknown` the object is None.
        """
        if strangeness is not None:
            for row, value in zip(rows, strangeness.tolist(), strict=True):
                row[f"{HEAD}_unknown"] = round(value, 4)
                row[HEAD] = None if value > self.max_unknown else row[HEAD]
        found: dict[str, np.ndarray] = {}
        names: dict[str, list[Any]] = {}
        for name, values in predictions.items():
            kind = specs[name].head_kind
            if isinstance(kind, ClassHeadKind):
                found[name], names[name] = kind.class_probabilities(values.astype(float)), list(specs[name].classes)
        if not found:
            raise TransferError("coverage and min_confidence: no head of this run chooses one of several classes")
        for name, probabilities in found.items():
            for row, doubtful in zip(rows, probabilities.max(1) < self.min_confidence, strict=True):
                row[name] = None if doubtful else row[name]
        if found.keys() >= set(PAIR):
            objects, domains = (names[name] for name in PAIR)
            found[PAIRS] = pair_probabilities(*(found[name] for name in PAIR))
            names[PAIRS] = [[name, domain] for domain in domains for name in objects]
        for name in [name for name in found if name in self.sets]:
            members = self.sets[name].predict_sets(found[name], self.coverage)
            order = np.argsort(-found[name], 1, kind="stable")
            for row, ranked, inside in zip(rows, order.tolist(), members, strict=True):
                row[f"{name}_set"] = [names[name][i] for i in ranked if inside[i]]


def choose_caution(
    uncertainty: Uncertainty | None, coverage: float | None, min_confidence: float, max_unknown: float = 1.0
) -> Caution | None:
    """Return a :class:`Caution`; None where there is nothing to add or to withhold.

    Raises
    ------
    TransferError
        A number is out of its range, the run has no prediction sets, which `coverage` needs, or no unknown score, which
        a `max_unknown` below 1 needs.
    """
    if not 0 <= min_confidence <= 1:
        raise TransferError(f"min_confidence {min_confidence:g}: it must be a probability from 0 to 1")
    if not 0 <= max_unknown <= 1:
        raise TransferError(f"max_unknown {max_unknown:g}: it must be a share of known images, from 0 to 1")
    unknown = uncertainty.unknown if uncertainty else None
    if max_unknown < 1 and unknown is None:
        raise TransferError("max_unknown: the run has no unknown score, which `transfer train` makes for classes")
    if coverage is None:
        return Caution({}, 0.0, min_confidence, unknown, max_unknown) if min_confidence or unknown else None
    if not 0 < coverage < 1:
        raise TransferError(f"coverage {coverage:g}: it must be above 0 and below 1, such as 0.9")
    if uncertainty is None:
        raise TransferError(
            "coverage: the run has no prediction sets, which `transfer train` makes from images that its heads were "
            "not trained on, for heads that choose one of several classes (not for several labels an image)"
        )
    return Caution(uncertainty.sets, coverage, min_confidence, unknown, max_unknown)
