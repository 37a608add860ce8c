"""What a run says of the shift without target labels; and, once these are out, of what adapting changed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from transfer.adaptation.closed_form.classifier import source_only_evidence
from transfer.adaptation.feature_map import sample_rows
from transfer.adaptation.label_shift import measure_label_shift, proxy_a_distance
from transfer.adaptation.selection.best_candidate import CandidateModel
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.data.table import ImageTable
from transfer.evaluation.paired import paired_test
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.report_data import MAX_MAPPED_IMAGES, FeatureState

FLAGS = ("strong", "partial", "open_set")


def describe_shift(
    task: AdaptationTask, chosen: CandidateEvidence, *, seed: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Return how the target differs from the source as result.json has it, and what to note; no target label is used.

    All but ``a_distance`` is read off a classifier of the source's training rows alone, on features standardised per
    domain (see `adaptation.label_shift`, which says how far it can be trusted). What cannot be estimated, as
    there are too few rows or no validation rows, is None. Class shares are rough, as misread images count for the wrong
    class: from amazon to webcam the estimated ones are 0.23 from the source's, the true ones 0.11; hence the flags,
    which allow for that.

    Parameters
    ----------
    task : AdaptationTask
        The pooled features before anything was learnt.
    chosen : CandidateEvidence
        Of the candidate that the rule took.

    Returns
    -------
    dict
        ``strong``, ``partial`` and ``open_set`` (label shift; source classes that the target lacks; target classes
        that the source lacks), ``total_variation`` of the class shares (by ``em`` and ``bbse``, and what mere
        ``chance`` would make it), ``prior`` (each object's share in ``source`` and ``target``), ``absent`` objects
        where ``partial``, ``looseness``, ``estimated_accuracy`` of that classifier on the target, and the proxy
        ``a_distance`` of pooled features ``before`` and of the chosen candidate's ``after``: where these were
        standardised per domain, about 0.
    list of str
    """
    domains = task.domains
    found = measure_label_shift(source_only_evidence(task, "standardise"), seed=seed)
    before = (task.pooled(rows).cpu().numpy() for rows in (domains.train, domains.unlabelled))
    after = (chosen.source_features, chosen.target_features)
    names = task.classes
    block = {
        **{name: getattr(found, name) for name in FLAGS},
        "total_variation": {
            "em": _number(found.variation),
            "bbse": _number(found.variation_bbse),
            "chance": _number(found.chance),
        },
        "estimated_accuracy": _number(found.estimated_accuracy),
        "looseness": _number(found.looseness),
        "a_distance": {
            "before": _number(proxy_a_distance(*before, seed=seed)),
            "after": _number(proxy_a_distance(*after, seed=seed)) if chosen.finite else None,
        },
        "absent": [names[k] for k in found.absent] if found.partial else [],
        "prior": {
            name: {"source": _number(found.source_prior[k]), "target": _number(found.target_prior[k])}
            for k, name in enumerate(names)
        },
    }
    return block, found.notes(names)


def merge_shift_flags(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the flags of :func:`describe_shift` over several seeds: raised if any seed raised them."""
    absent = dict.fromkeys(name for block in blocks for name in block["absent"])
    return {name: any(block[name] for block in blocks) for name in FLAGS} | {"absent": list(absent)}


def compare_with_source_only(
    tests: Sequence[tuple[ImageTable, Predictions]], before: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return what adapting changed, for each object and in all.

    Parameters
    ----------
    tests : sequence of (ImageTable, Predictions)
        For each seed the test images with their true objects, and the adapted model's answers on them.
    before : sequence of ndarray
        For each seed the classes that source_only gave these images, int64, shape (N,).

    Returns
    -------
    dict
        ``per_class_change``: for each object the recall of ``source_only`` and ``adapted`` over all seeds, their
        ``change`` and the number ``n`` of its images, largest gain first, largest loss last. ``paired``: by head, the
        adapted model against source_only, see :func:`~transfer.evaluation.paired.paired_test`. Both are empty where no
        label is known.
    """
    columns = []
    for (table, answers), was in zip(tests, before, strict=True):
        known = table.object >= 0
        true = table.object[known]
        right = [said[known] == true for said in (was, answers["object"].argmax(1))]
        columns.append((table.paths[known], np.array(table.objects)[true], *right))
    paths, objects, old, new = (np.concatenate(column) for column in zip(*columns, strict=True))
    changes = []
    for name in np.unique(objects).tolist():
        own = objects == name
        recalls = float(old[own].mean()), float(new[own].mean())
        n = len(np.unique(paths[own]))
        changes.append(
            (name, {"source_only": recalls[0], "adapted": recalls[1], "change": recalls[1] - recalls[0], "n": n})
        )
    return {
        "per_class_change": dict(sorted(changes, key=lambda item: -item[1]["change"])),
        "paired": {"object": paired_test(new, old, paths)} if len(paths) else {},
    }


def map_states(reference: CandidateModel, taken: CandidateModel) -> dict[str, CandidateEvidence]:
    """Return by title what there is to see: one map where what was taken is what was there before."""
    old, new = reference.evidence, taken.evidence
    if np.array_equal(old.target_features, new.target_features) and np.array_equal(
        old.target_logits, new.target_logits
    ):
        return {f"before and after ({taken.name})": old}
    return {"before": old, f"after ({taken.name})": new}


def report_state(title: str, evidence: CandidateEvidence) -> FeatureState:
    """Return the features of some images of both sides; a target image's object is what is predicted of it."""
    source, target = sample_rows(len(evidence.source_features), len(evidence.target_features), most=MAX_MAPPED_IMAGES)
    features = np.concatenate([evidence.source_features[source], evidence.target_features[target]])
    objects = np.concatenate([evidence.source_labels[source], evidence.target_logits[target].argmax(1)])
    return FeatureState(title, features, objects, np.repeat([0, 1], [len(source), len(target)]))


def _number(x: float) -> float | None:
    """Return `x` as JSON can hold it."""
    return round(float(x), 6) if math.isfinite(x) else None
