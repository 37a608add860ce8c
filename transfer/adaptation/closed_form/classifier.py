"""Linear classifiers solved on aligned features, and their export as heads on pooled features."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from transfer.adaptation.closed_form.alignment import AffineMap, fit_alignment
from transfer.adaptation.label_shift import estimate_accuracy
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.linear import solve_linear_probe

DEFAULT_CLASSIFIER_L2 = 0.1  # L2 regularisation without validation rows
SHIFT_FEATURES = ("standardise", "none")  # closed forms under the classifiers from which label shift is estimated
DISTIL_L2 = 0.01  # L2 regularisation with which heads learn refined target probabilities


@dataclass(frozen=True)
class AlignedFeatures:
    """The features of all domains in the aligned space of a closed form, each (N, size)."""

    maps: tuple[AffineMap, ...]  # of each source and, last, the target
    train: np.ndarray  # source rows to train on
    val: np.ndarray  # source rows to validate on
    labelled: np.ndarray  # target rows with a label
    target: np.ndarray  # target rows without

    def evidence(self, task: AdaptationTask, heads: Heads) -> CandidateEvidence:
        """Return the evidence of linear `heads` on these features."""
        with torch.inference_mode():
            val, target = (
                heads(torch.from_numpy(rows).to(heads.centre))["object"].cpu().numpy()
                for rows in (self.val, self.target)
            )
        features = (self.train, self.val, self.target, self.labelled)
        return task.evidence(task.domains.train, features, val, target)


def align_features(
    task: AdaptationTask, kind: str, compute: Callable[[np.ndarray], Tensor] | None = None
) -> AlignedFeatures:
    """Return the features of `task` aligned by the closed form `kind`, fitted on all rows of each domain.

    `compute` returns the pooled features of rows (default: those of the task).
    """
    domains = task.domains
    parts = (domains.train, domains.val, domains.labelled, domains.unlabelled)
    rows = np.concatenate(parts)
    pooled, sides = (compute or task.pooled)(rows).cpu().numpy(), task.sides(rows)
    maps = fit_alignment(kind, *(pooled[side] for side in sides))
    mapped = np.empty((len(rows), maps[-1].size), np.float32)
    for affine, side in zip(maps, sides, strict=True):
        mapped[side] = affine(pooled[side])
    return AlignedFeatures(maps, *np.split(mapped, np.cumsum([len(part) for part in parts[:-1]])))


def solve_classifier(
    task: AdaptationTask, features: AlignedFeatures, *, source: bool = True, target: bool = True
) -> Heads:
    """Return linear heads on aligned features, solved on the labelled rows of the `source` and of the `target`.

    The L2 regularisation is the strongest whose validation accuracy is within a standard error of the best (Hastie et
    al. 2009, sec. 7.10): features that the source can do without often mislead on the target. Labels are not smoothed.
    Unless the validation rows must stay unseen, the heads are refitted on them too. The labelled target rows together
    weigh as much as all source rows.
    """
    return solve_and_estimate(task, features, source=source, target=target)[0]


def solve_and_estimate(
    task: AdaptationTask, features: AlignedFeatures, *, source: bool = True, target: bool = True
) -> tuple[Heads, float | None]:
    """Return what :func:`solve_classifier` does, and its accuracy on the target, estimated without target labels.

    The estimate (:func:`~transfer.adaptation.label_shift.estimate_accuracy`) is that of the heads before they are
    refitted on the validation rows; None without such rows.
    """
    domains, labels = task.domains, task.labels
    if not source:
        y = labels[torch.from_numpy(domains.labelled)]
        return _solved(task, features.labelled, y, np.ones(len(y), np.float32))[0], None
    few = domains.labelled if target else domains.labelled[:0]
    y = labels[torch.from_numpy(np.concatenate([domains.train, few]))]
    x = np.concatenate([features.train, features.labelled[: len(few)]])
    val = (torch.from_numpy(features.val), labels[torch.from_numpy(domains.val)])
    heads, strength = _solved(task, x, y, _weights(len(domains.train), len(few)), val=val)
    if not len(domains.val):
        return heads, None
    unseen = features.evidence(task, heads)
    estimate = estimate_accuracy(unseen.val_logits, unseen.val_labels, unseen.target_logits)
    if task.hold_out:
        return heads, estimate
    y = torch.cat([y, val[1]])
    x = np.concatenate([x, features.val])
    weights = _weights(len(domains.train), len(few), len(domains.train) + len(domains.val))
    weights = np.append(weights, np.ones(len(domains.val), np.float32))
    return _solved(task, x, y, weights, strength=strength)[0], estimate


def source_only_evidence(task: AdaptationTask, kind: str) -> CandidateEvidence:
    """Return the evidence of a classifier solved on the source's training rows alone, on features aligned by `kind`.

    Neither the validation rows, which can calibrate it, nor the target's labels are used.
    """
    no_rows = task.domains.val[:0]
    unlabelled = copy.copy(task)
    unlabelled.domains = replace(task.domains, labelled=no_rows)
    features = align_features(unlabelled, kind)
    without_val = copy.copy(unlabelled)
    without_val.domains = replace(unlabelled.domains, val=no_rows)
    heads = solve_classifier(without_val, replace(features, val=features.val[:0]))
    return features.evidence(unlabelled, heads)


def _weights(train: int, labelled: int, source: int | None = None) -> np.ndarray:
    """Return row weights: 1 for each of `train` rows; `labelled` rows together weigh as much as `source` rows."""
    return np.repeat(np.array([1, (source or train) / max(labelled, 1)], np.float32), [train, labelled])


def distil(task: AdaptationTask, features: AlignedFeatures, q: np.ndarray) -> Heads:
    """Return linear heads on aligned features that learn the target's class probabilities `q` (N, classes).

    They learn the most likely class of each row, weighted by its probability, and the target's few labels.
    """
    x = np.concatenate([features.target, features.labelled])
    known = task.labels[torch.from_numpy(task.domains.labelled)]
    y = torch.cat([torch.from_numpy(q.argmax(1)), known])
    weights = np.concatenate([q.max(1), np.ones(len(known))]).astype(np.float32)
    return _solved(task, x, y, weights, strength=DISTIL_L2)[0]


def fold_alignment(heads: Heads, scaling: AffineMap) -> Heads:
    """Return linear `heads` on aligned features as heads on pooled features; `scaling` is the target's map."""
    (solved,) = (layer for layer in heads.modules() if isinstance(layer, nn.Linear))
    out = Heads(list(heads.specs.values()), len(scaling.centre))
    (layer,) = (layer for layer in out.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        weight = solved.weight / heads.spread
        weight, bias = scaling.folded(weight, solved.bias - weight @ heads.centre)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return out.to(heads.centre.device)


def predict_test(task: AdaptationTask, heads: Heads, evidence: CandidateEvidence) -> np.ndarray:
    """Return the logits (n, classes) of the test rows; the backbone must have the weights that belong to `heads`."""
    domains = task.domains
    if np.isin(domains.test, domains.unlabelled).all():
        return evidence.target_logits[np.searchsorted(domains.unlabelled, domains.test)]
    with torch.inference_mode():
        return heads(task.pooled(domains.test))["object"].cpu().numpy()


def _solved(
    task: AdaptationTask,
    x: np.ndarray,
    y: Tensor,
    weights: np.ndarray,
    *,
    val: tuple[Tensor, Tensor] | None = None,
    strength: float | None = None,
) -> tuple[Heads, float]:
    """Return heads solved with L2 regularisation `strength`, or the one that `val` chooses; and the strength."""
    heads = Heads([HeadSpec("object", classes=task.classes)], x.shape[1]).to(task.device)
    if strength is None and not (val and len(val[0])):
        strength = DEFAULT_CLASSIFIER_L2
    strengths = solve_linear_probe(
        heads,
        (torch.from_numpy(x), {"object": y}),
        (val[0], {"object": val[1]}) if val else None,
        row_weights={"object": torch.from_numpy(weights)},
        fixed_l2=None if strength is None else {"object": strength},
        robust=True,
    )
    return heads, strengths["object"]


register_method("source_only", "the source's classifier, not adapted: the reference of every result", align="none")
register_method("target_only", "the target's few labels alone, without the source", uses_source=False)
