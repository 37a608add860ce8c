"""What accuracy is expected from, as a run keeps it: made of held-out predictions, and as tensors of a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer.data.table import Target
from transfer.evaluation.label_free.expected_accuracy import AccuracyReference
from transfer.evaluation.label_free.second_opinion import SecondOpinion
from transfer.heads import find_head_kind
from transfer.heads.kind import ClassHeadKind

MAX_KEPT = 2500  # held-out images; a random sample of more
_PREFIX = "accuracy"
_OPINION = ("weight", "bias", "centroids")


def collect_references(
    predictions: Mapping[str, np.ndarray], targets: Mapping[str, Target], opinions: Mapping[str, SecondOpinion]
) -> dict[str, AccuracyReference]:
    """Return by head the reference of those with `opinions`, from `predictions` and `targets` of held-out images."""
    found = {}
    for name, opinion in opinions.items():
        kind = find_head_kind(targets[name].kind)
        if name not in predictions or not isinstance(kind, ClassHeadKind):
            continue
        probabilities, labels = kind.class_probabilities(predictions[name].astype(float)), targets[name].values
        seen = np.flatnonzero((labels >= 0) & (labels < probabilities.shape[1]) & np.isfinite(probabilities).all(1))
        if len(seen) > MAX_KEPT:
            seen = np.sort(np.random.default_rng(0).permutation(seen)[:MAX_KEPT])
        if len(seen):
            found[name] = AccuracyReference(probabilities[seen].astype(np.float16), labels[seen], opinion)
    return found


def reference_tensors(references: Mapping[str, AccuracyReference]) -> dict[str, np.ndarray]:
    """Return the tensors that :func:`read_references` reads, by their names in the file."""
    tensors: dict[str, np.ndarray] = {}
    for name, reference in references.items():
        opinion = reference.opinion
        parts = {"probabilities": reference.probabilities, "labels": reference.labels, "bias": opinion.bias}
        parts |= {key: getattr(opinion, key).astype(np.float16) for key in ("weight", "centroids")}
        tensors |= {f"{_PREFIX}/{name}/{key}": np.ascontiguousarray(values) for key, values in parts.items()}
    return tensors


def read_references(opened: Any) -> dict[str, AccuracyReference]:
    """Return by head the references of the safetensors file `opened`; none of a run of an earlier version.

    Raises
    ------
    ValueError
        The tensors do not belong together.
    """
    found = {}
    places = [key.split("/", 1)[1].rsplit("/", 1)[0] for key in opened.keys() if key.startswith(f"{_PREFIX}/")]  # noqa: SIM118
    for name in dict.fromkeys(places):
        get = {key: opened.get_tensor(f"{_PREFIX}/{name}/{key}") for key in ("probabilities", "labels", *_OPINION)}
        opinion = SecondOpinion(*(get[key].astype(np.float32) for key in _OPINION))
        classes = len(opinion.bias)
        if get["probabilities"].shape != (len(get["labels"]), classes) or len(opinion.weight) != classes:
            raise ValueError(f"tensors of {_PREFIX}/{name} that do not belong together")
        if not len(get["labels"]) or not 0 <= get["labels"].min() <= get["labels"].max() < classes:
            raise ValueError(f"labels of {_PREFIX}/{name} that no class has")
        found[name] = AccuracyReference(get["probabilities"], get["labels"], opinion)
    return found
