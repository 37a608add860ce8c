"""The uncertainty of a run: what its prediction sets are made from, saved beside the model, and how well they do."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from transfer.data.table import ImageTable, Target
from transfer.errors import TransferError
from transfer.evaluation.label_free.expected_accuracy import AccuracyReference
from transfer.evaluation.label_free.references import collect_references, read_references, reference_tensors
from transfer.evaluation.label_free.second_opinion import SecondOpinion
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.uncertainty.conformal import PredictionSets, measure_sets, pair_labels, pair_probabilities
from transfer.evaluation.uncertainty.risk_coverage import measure_risk_coverage
from transfer.evaluation.uncertainty.unknown import UNKNOWN_SCORES, UnknownScore
from transfer.heads import find_head_kind
from transfer.heads.heads import PAIR, PAIRS
from transfer.heads.kind import ClassHeadKind
from transfer.runs.folder import MODEL_FILE, UNCERTAINTY_FILE
from transfer.runtime.files import atomic_write, parse_json

log = logging.getLogger(__name__)

UNCERTAINTY_FORMAT = "transfer uncertainty 1"
COVERAGES = (0.8, 0.9, 0.95)  # that results report
STRANGE = 0.95  # unknown score from which on results count an image as strange: 5 % of known ones


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions by head for the `rows` of a table, by heads that were not trained on them; `method` says how.

    `unknown` has the unknown scores of these rows for reference, `opinions` the second opinion on each head's classes.
    """

    rows: np.ndarray
    predictions: dict[str, np.ndarray]
    method: str
    unknown: UnknownScore | None = None
    opinions: Mapping[str, SecondOpinion] = field(default_factory=dict)


@dataclass(frozen=True)
class Uncertainty:
    """Prediction sets by head, and `PAIRS` for pairs of object and domain; `method` says how they were calibrated.

    `unknown` scores how likely an image shows no known class; `accuracy` has by head what its accuracy on images
    without labels is expected from.
    """

    sets: Mapping[str, PredictionSets]
    method: str
    unknown: UnknownScore | None = None
    accuracy: Mapping[str, AccuracyReference] = field(default_factory=dict)

    @classmethod
    def from_predictions(cls, predictions: Predictions, targets: Mapping[str, Target], method: str) -> "Uncertainty":
        """Return that of heads with these `predictions` and `targets` for images that they were not trained on."""
        found = {}
        for name, (probabilities, labels) in _all_probabilities(predictions, targets).items():
            seen = (labels >= 0) & np.isfinite(probabilities).all(1)
            if seen.any():
                found[name] = PredictionSets.from_predictions(probabilities[seen], labels[seen])
        return cls(found, method)

    @classmethod
    def from_held_out(cls, table: ImageTable, parts: Iterable[HeldOut | None]) -> "Uncertainty | None":
        """Return that of networks with these held-out predictions for rows of `table`; None if there are none.

        Networks may have predicted different rows: pairs are those of the rows that all have.
        """
        found = [part for part in parts if part]
        if not found:
            return None
        rows = np.unique(np.concatenate([part.rows for part in found]))
        predictions: Predictions = {}
        for part in found:
            for name, values in part.predictions.items():
                predictions[name] = np.full((len(rows), *values.shape[1:]), np.nan)
                predictions[name][np.searchsorted(rows, part.rows)] = values
        method = "; ".join(dict.fromkeys(part.method for part in found))
        made = cls.from_predictions(predictions, table.take(rows).targets, method)
        unknown = next((part.unknown for part in found if part.unknown), None)
        opinions = {name: opinion for part in found for name, opinion in part.opinions.items()}
        accuracy = collect_references(predictions, table.take(rows).targets, opinions)
        return replace(made, unknown=unknown, accuracy=accuracy) if made.sets else None

    def save(self, folder: Path) -> None:
        """Write it into the run folder `folder`."""
        tensors: dict[str, np.ndarray] = {}
        for name, sets in self.sets.items():
            tensors |= {f"scores/{name}": sets.scores.astype(np.float32), f"labels/{name}": sets.labels}
        classes = {name: sets.classes for name, sets in self.sets.items()}
        about: dict[str, Any] = {"format": UNCERTAINTY_FORMAT, "method": self.method, "classes": classes}
        if self.unknown:
            tensors |= {f"unknown/{key}": values.numpy() for key, values in self.unknown.state.items()}
            tensors["unknown_reference"] = self.unknown.reference.numpy()
            about["unknown"] = self.unknown.describe()
        tensors |= reference_tensors(self.accuracy)
        with atomic_write(folder / UNCERTAINTY_FILE) as temporary:
            save_file(tensors, temporary, metadata={"transfer": json.dumps(about)})

    def measure(
        self, table: ImageTable, predictions: Predictions, strangeness: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return coverage and size of the sets of `predictions` for the images of `table`, and risk by coverage.

        With `strangeness`, :meth:`UnknownScore.rate` (N,) of these images, also what is known about the unknown score,
        and the ``share`` of images above `STRANGE`, which of known images is 1 - `STRANGE`.
        """
        report: dict[str, Any] = {"method": self.method, "heads": {}}
        if self.unknown:
            report["unknown"] = self.unknown.describe()
            if strangeness is not None and len(strangeness):
                report["unknown"]["strange"] = {"above": STRANGE, "share": float((strangeness > STRANGE).mean())}
        for name, (probabilities, labels) in _all_probabilities(predictions, table.targets).items():
            known = labels >= 0
            if name not in self.sets or not known.any() or not np.isfinite(probabilities).all():
                continue
            sets = self.sets[name]
            report["heads"][name] = {
                "n": len(sets.scores),
                "per_class": int(sets.frequent.sum()),
                "sets": {f"{c:g}": measure_sets(sets.predict_sets(probabilities, c), labels) for c in COVERAGES},
            }
            if name != PAIRS:
                correct = probabilities.argmax(1) == labels
                risk = measure_risk_coverage(probabilities.max(1)[known], correct[known])
                report["heads"][name]["risk_coverage"] = risk
        return report


def find_uncertainty(run: Path | None) -> Uncertainty | None:
    """Return the uncertainty saved in the folder `run`, or beside its model.safetensors; None where there is none.

    A damaged one is logged, as predictions need none. Snapshots and other weights have none of their own.
    """
    if run is None or not (run.is_dir() or run.name == MODEL_FILE):
        return None
    if not ((run if run.is_dir() else run.parent) / UNCERTAINTY_FILE).is_file():
        return None
    try:
        return load_uncertainty(run)
    except TransferError as error:
        log.warning("%s; without prediction sets and unknown scores", error)
        return None


def load_uncertainty(run: Path) -> Uncertainty:
    """Return the uncertainty that was saved in the folder `run`, or beside its model.safetensors.

    Raises
    ------
    TransferError
        There is none, as for a snapshot, or it is damaged.
    """
    if not run.is_dir() and run.name != MODEL_FILE:
        raise TransferError(f"{run}: prediction sets and unknown scores belong to {MODEL_FILE} of the run alone")
    file = (run if run.is_dir() else run.parent) / UNCERTAINTY_FILE
    if not file.is_file():
        raise TransferError(
            f"{run} has no {UNCERTAINTY_FILE}, which prediction sets and unknown scores need: `transfer "
            "train` with validation images writes it"
        )
    try:
        with safe_open(file, "np") as opened:
            about = parse_json((opened.metadata() or {}).get("transfer", "{}"))
            if about.get("format") != UNCERTAINTY_FORMAT:
                raise ValueError("another format")
            sets = {
                name: PredictionSets(
                    opened.get_tensor(f"scores/{name}").astype(float), opened.get_tensor(f"labels/{name}"), int(count)
                )
                for name, count in about["classes"].items()
            }
            if any(s.labels.shape != s.scores.shape or s.labels.max(initial=0) >= s.classes for s in sets.values()):
                raise ValueError("labels that no class has")
            unknown = _load_unknown(opened, about["unknown"]) if "unknown" in about else None
            return Uncertainty(sets, str(about["method"]), unknown, read_references(opened))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise TransferError(f"{file} is damaged ({error}): train the run again") from error


def _load_unknown(opened: Any, about: Mapping[str, Any]) -> UnknownScore:
    """Return the unknown score of the file `opened`; raise a ValueError or KeyError if it is not one."""
    state = {
        key.removeprefix("unknown/"): torch.from_numpy(opened.get_tensor(key))
        for key in opened.keys()  # noqa: SIM118 (not a dict)
        if key.startswith("unknown/")
    }
    if about["score"] not in UNKNOWN_SCORES:
        raise ValueError(f"no unknown score {about['score']!r}")
    reference = torch.from_numpy(opened.get_tensor("unknown_reference"))
    return UnknownScore(about["score"], state, reference, dict(about["auroc"]), str(about["reason"]))


def _all_probabilities(
    predictions: Predictions, targets: Mapping[str, Target]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return probabilities (N, classes) and labels (N,) of each head with classes, and of pairs of both."""
    found = {}
    for name, values in predictions.items():
        kind = find_head_kind(targets[name].kind)
        if isinstance(kind, ClassHeadKind) and len(values):
            found[name] = kind.class_probabilities(values.astype(float)), targets[name].values
    if found.keys() >= set(PAIR):
        (objects, object_labels), (domains, domain_labels) = (found[name] for name in PAIR)
        labels = pair_labels(object_labels, domain_labels, objects.shape[1])
        untrained = (object_labels >= objects.shape[1]) | (domain_labels >= domains.shape[1])
        labels[untrained & (labels >= 0)] = objects.shape[1] * domains.shape[1]  # in no set, as no pair is
        found[PAIRS] = pair_probabilities(objects, domains), labels
    return found
