"""The shift as estimated without target labels; and, once these are revealed, what adapting changed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.adaptation.closed_form.classifier import SHIFT_FEATURES, source_only_evidence
from transfer.adaptation.feature_map import sample_map_rows
from transfer.adaptation.label_shift import measure_label_shift, proxy_a_distance
from transfer.adaptation.selection.best_candidate import CandidateModel
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.data.table import ImageTable
from transfer.evaluation.paired import paired_test
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.report_data import MAX_MAPPED_IMAGES, FeatureState

SHIFT_FLAGS = ("strong", "partial", "open_set")


def describe_shift(
    task: AdaptationTask, chosen: CandidateEvidence, *, seed: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Return result.json's ``shift``, how the target differs from the source, and notes; no target label is used.

    All but ``a_distance`` comes from a classifier of the source's training rows alone, on features standardised per
    domain; `adaptation.label_shift` reports its reliability. None where there are too few rows or no validation rows.
    Class shares are rough, since misclassified images count for the wrong class: from amazon to webcam, the estimated
    total variation is 0.23, the true one 0.11. The flags allow for that.

    `task` has the pooled features before training; `chosen` is the evidence of the candidate that the rule chose.

    Returns
    -------
    dict
        Flags ``strong`` (label shift), ``partial`` (the target lacks source classes) and ``open_set`` (the source lacks
        target classes); ``total_variation`` of the class shares (by ``em`` and ``bbse``, by ``chance``, and the
        ``disagreement`` of estimates, which makes them ``reliable`` or not); ``prior``
        (each object's share in ``source`` and ``target``); ``absent`` objects if ``partial``; ``looseness``;
        ``estimated_accuracy`` of that classifier on the target; and the proxy ``a_distance`` of pooled features
        ``before`` and of the chosen candidate's features ``after``, about 0 if these were standardised per domain.
    list of str
    """
    domains = task.domains
    label_shift = measure_label_shift(*(source_only_evidence(task, kind) for kind in SHIFT_FEATURES), seed=seed)
    before = (task.pooled(rows).cpu().numpy() for rows in (domains.train, domains.unlabelled))
    after = (chosen.source_features, chosen.target_features)
    names = task.classes
    block = {
        **{name: getattr(label_shift, name) for name in (*SHIFT_FLAGS, "reliable")},
        "total_variation": {
            "em": _number(label_shift.variation),
            "bbse": _number(label_shift.variation_bbse),
            "chance": _number(label_shift.chance),
            "disagreement": _number(label_shift.disagreement),
        },
        "estimated_accuracy": _number(label_shift.estimated_accuracy),
        "looseness": _number(label_shift.looseness),
        "a_distance": {
            "before": _number(proxy_a_distance(*before, seed=seed)),
            "after": _number(proxy_a_distance(*after, seed=seed)) if chosen.finite else None,
        },
        "absent": [names[k] for k in label_shift.absent] if label_shift.partial else [],
        "prior": {
            name: {"source": _number(label_shift.source_prior[k]), "target": _number(label_shift.target_prior[k])}
            for k, name in enumerate(names)
        },
    }
    return block, label_shift.notes(names)


def measure_shift_by_labels(source: ImageTable, test: ImageTable) -> dict[str, float]:
    """Return what labels say of the shift that :func:`describe_shift` estimates without them.

    The objects of `test`, the target's test images, begin with those of `source`.

    Returns
    -------
    dict
        ``total_variation`` of the class shares, and the share of ``new_objects`` that the source lacks. Empty if no
        label is known.
    """
    known, classes = test.object[test.object >= 0], len(test.objects)
    if not len(known):
        return {}
    before, after = (np.bincount(labels, minlength=classes) / len(labels) for labels in (source.object, known))
    variation, new = np.abs(after - before).sum() / 2, after[len(source.objects) :].sum()
    return {"total_variation": round(float(variation), 6), "new_objects": round(float(new), 6)}


def merge_shift_flags(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the flags of :func:`describe_shift` over several seeds: raised if any seed raised them."""
    absent = dict.fromkeys(name for block in blocks for name in block["absent"])
    flags = {name: any(block[name] for block in blocks) for name in SHIFT_FLAGS}
    return flags | {"reliable": all(block["reliable"] for block in blocks), "absent": list(absent)}


def compare_with_source_only(
    tests: Sequence[tuple[ImageTable, Predictions]], before: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return what adapting changed, per object and overall; `tests` and `before` as in an ``AdaptRun``.

    Returns
    -------
    dict
        ``per_class_change``: for each object, the recall of ``source_only`` and ``adapted`` over all seeds, their
        ``change`` and the number ``n`` of its images, largest gain first. ``paired``: by head, the adapted model
        against source_only, see :func:`~transfer.evaluation.paired.paired_test`. Both are empty if no label is known.
    """
    columns = []
    for (table, predictions), source_only in zip(tests, before, strict=True):
        known = table.object >= 0
        true = table.object[known]
        correct = [classes[known] == true for classes in (source_only, predictions["object"].argmax(1))]
        columns.append((table.paths[known], np.array(table.objects)[true], *correct))
    paths, objects, old, new = (np.concatenate(column) for column in zip(*columns, strict=True))
    changes = []
    for name in np.unique(objects).tolist():
        rows = objects == name
        recalls = float(old[rows].mean()), float(new[rows].mean())
        n = len(np.unique(paths[rows]))
        changes.append(
            (name, {"source_only": recalls[0], "adapted": recalls[1], "change": recalls[1] - recalls[0], "n": n})
        )
    return {
        "per_class_change": dict(sorted(changes, key=lambda item: -item[1]["change"])),
        "paired": {"object": paired_test(new, old, paths)} if len(paths) else {},
    }


def map_states(reference: CandidateModel, chosen: CandidateModel) -> dict[str, CandidateEvidence]:
    """Return the evidence to map by title: a single one if the chosen candidate equals the reference."""
    old, new = reference.evidence, chosen.evidence
    if np.array_equal(old.target_features, new.target_features) and np.array_equal(
        old.target_logits, new.target_logits
    ):
        return {f"before and after ({chosen.name})": old}
    return {"before": old, f"after ({chosen.name})": new}


def report_state(title: str, evidence: CandidateEvidence) -> FeatureState:
    """Return the features of sampled images of both domains; a target image's object is its prediction."""
    source, target = sample_map_rows(
        len(evidence.source_features), len(evidence.target_features), most=MAX_MAPPED_IMAGES
    )
    features = np.concatenate([evidence.source_features[source], evidence.target_features[target]])
    objects = np.concatenate([evidence.source_labels[source], evidence.target_logits[target].argmax(1)])
    return FeatureState(title, features, objects, np.repeat([0, 1], [len(source), len(target)]))


def _number(x: float) -> float | None:
    """Return `x` rounded, or None if it is not finite, which JSON cannot hold."""
    return round(float(x), 6) if math.isfinite(x) else None
