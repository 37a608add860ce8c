"""Linear classifiers on aligned features, solved; and what any classifier answers for the target, as heads."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from transfer.adaptation.closed_form.alignment import AffineMap, fit_alignment
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import AdaptationTask
from transfer.heads import HeadSpec
from transfer.heads.heads import Heads
from transfer.probes.linear import solve_linear_probe

DEFAULT = 0.1  # strength without validation rows
DISTIL_L2 = 0.01  # L2 regularisation with which heads learn refined target probabilities


@dataclass(frozen=True)
class AlignedFeatures:
    """A pair's features after a closed form.

    Parameters
    ----------
    maps : tuple of AffineMap
        Of each source and, last, the target.
    train, val, labelled, target : ndarray
        Features in the aligned space, (N, size): of the source's rows, of the target's with and without a label.
    """

    maps: tuple[AffineMap, ...]
    train: np.ndarray
    val: np.ndarray
    labelled: np.ndarray
    target: np.ndarray

    def evidence(self, stage: AdaptationTask, heads: Heads) -> CandidateEvidence:
        """Return what rules may see of linear `heads` on these features."""
        with torch.inference_mode():
            val, target = (
                heads(torch.from_numpy(rows).to(heads.centre))["object"].cpu().numpy()
                for rows in (self.val, self.target)
            )
        labels, domains = stage.labels.numpy(), stage.domains
        return CandidateEvidence(
            self.train,
            labels[domains.train],
            self.val,
            val,
            labels[domains.val],
            self.target,
            target,
            self.labelled,
            labels[domains.labelled],
        )


def align_features(stage: AdaptationTask, kind: str) -> AlignedFeatures:
    """Return the features of `stage` under the closed form `kind`, learnt from all rows of each domain."""
    domains = stage.domains
    parts = (domains.train, domains.val, domains.labelled, domains.unlabelled)
    rows = np.concatenate(parts)
    pooled, sides = stage.pooled(rows).cpu().numpy(), stage.sides(rows)
    maps = fit_alignment(kind, *(pooled[side] for side in sides))
    mapped = np.empty((len(rows), maps[-1].size), np.float32)
    for affine, side in zip(maps, sides, strict=True):
        mapped[side] = affine(pooled[side])
    return AlignedFeatures(maps, *np.split(mapped, np.cumsum([len(part) for part in parts[:-1]])))


def solve_classifier(
    stage: AdaptationTask, features: AlignedFeatures, *, source: bool = True, target: bool = True
) -> Heads:
    """Return linear heads on aligned features, solved on the labelled rows of the `source` and of the `target`.

    Of the regularisation strengths the strongest is taken whose accuracy on the validation rows is within a standard
    error of the best (Hastie et al. 2009, sec. 7.10): what the source can do without, the target often cannot bear.
    Labels are not smoothed. Unless the validation rows must stay unseen, they are learnt from too in the end. Labelled
    target rows weigh as much as all of the source together.
    """
    domains, labels = stage.domains, stage.labels
    if not source:
        y = labels[torch.from_numpy(domains.labelled)]
        return _solved(stage, features.labelled, y, np.ones(len(y), np.float32))[0]
    few = domains.labelled if target else domains.labelled[:0]
    y = labels[torch.from_numpy(np.concatenate([domains.train, few]))]
    x = np.concatenate([features.train, features.labelled[: len(few)]])
    val = (torch.from_numpy(features.val), labels[torch.from_numpy(domains.val)])
    heads, strength = _solved(stage, x, y, _weights(len(domains.train), len(few)), val=val)
    if stage.hold_out or not len(domains.val):
        return heads
    y = torch.cat([y, val[1]])
    x = np.concatenate([x, features.val])
    weights = _weights(len(domains.train), len(few), len(domains.train) + len(domains.val))
    return _solved(stage, x, y, np.append(weights, np.ones(len(domains.val), np.float32)), strength=strength)[0]


def source_only_evidence(stage: AdaptationTask, kind: str) -> CandidateEvidence:
    """Return what a classifier of the source's training rows alone says, on features under the closed form `kind`.

    Neither the validation rows, by which it can be calibrated, nor the target's labels have a part in it.
    """
    none = stage.domains.val[:0]
    seen = copy.copy(stage)
    seen.domains = replace(stage.domains, labelled=none)
    features = align_features(seen, kind)
    learning = copy.copy(seen)
    learning.domains = replace(seen.domains, val=none)
    heads = solve_classifier(learning, replace(features, val=features.val[:0]))
    return features.evidence(seen, heads)


def _weights(train: int, labelled: int, source: int | None = None) -> np.ndarray:
    """Return 1 for each of `train` rows, and for each of `labelled` what makes them weigh as `source` rows do."""
    return np.repeat(np.array([1, (source or train) / max(labelled, 1)], np.float32), [train, labelled])


def distil(stage: AdaptationTask, features: AlignedFeatures, q: np.ndarray) -> Heads:
    """Return linear heads on aligned features that answer for the target's rows as `q` (N, classes) does.

    They learn the most likely class of each row, weighted by its probability, and the target's own labels.
    """
    x = np.concatenate([features.target, features.labelled])
    known = stage.labels[torch.from_numpy(stage.domains.labelled)]
    y = torch.cat([torch.from_numpy(q.argmax(1)), known])
    weights = np.concatenate([q.max(1), np.ones(len(known))]).astype(np.float32)
    return _solved(stage, x, y, weights, strength=DISTIL_L2)[0]


def fold_alignment(heads: Heads, scaling: AffineMap) -> Heads:
    """Return linear `heads` on aligned features as heads on pooled features of target images."""
    (solved,) = (layer for layer in heads.modules() if isinstance(layer, nn.Linear))
    out = Heads(list(heads.specs.values()), len(scaling.centre))
    (layer,) = (layer for layer in out.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        weight = solved.weight / heads.spread
        weight, bias = scaling.folded(weight, solved.bias - weight @ heads.centre)
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return out.to(heads.centre.device)


def predict_test(stage: AdaptationTask, heads: Heads, evidence: CandidateEvidence) -> np.ndarray:
    """Return the logits (n, classes) of a pair's test rows, the backbone being as it belongs to `heads`."""
    domains = stage.domains
    place = np.searchsorted(domains.unlabelled, domains.test)
    if (
        len(domains.unlabelled)
        and (domains.unlabelled[place.clip(max=len(domains.unlabelled) - 1)] == domains.test).all()
    ):
        return evidence.target_logits[place]
    with torch.inference_mode():
        return heads(stage.pooled(domains.test))["object"].cpu().numpy()


def _solved(
    stage: AdaptationTask,
    x: np.ndarray,
    y: Tensor,
    weights: np.ndarray,
    *,
    val: tuple[Tensor, Tensor] | None = None,
    strength: float | None = None,
) -> tuple[Heads, float]:
    """Return heads solved at `strength`, or at the one that `val` chooses, and it."""
    heads = Heads([HeadSpec("object", classes=stage.classes)], x.shape[1]).to(stage.device)
    if strength is None and not (val and len(val[0])):
        strength = DEFAULT
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
