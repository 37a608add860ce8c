"""The default: class confusion minimised by several networks, their answers refined on the target's own geometry.

1. Where the target's class shares seem to differ strongly from the source's, and still do once two source classifiers
   (of standardised features, of plain ones) are refined on the target's geometry, whatever aligns or balances classes
   hurts. The answer is these two, under the class shares that EM estimates, refined with no class balanced. Else three
   networks minimise class confusion (MCC) on standardised features; label smoothing, which keeps networks unsure, is
   what undoes MCC: none is used.
2. Where the source's probe agrees with that on nearly all target images, the shift is small and adapting can only lose:
   the answer is source_only's.
3. Else, unless class shares differ, a product of experts: the networks' answers times the nearness to class centroids,
   smoothed over each image's neighbours, classes balanced softly (`product_of_experts.combine`).
4. With a trained tail, a network above it learns the source's labels, these answers as pseudo-labels, and MCC, from
   augmented views; its answers and the former ones are then refined together, on both kinds of features.
5. A linear classifier learns the outcome: what is measured and saved is a plain model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch

from transfer.adaptation.closed_form.classifier import (
    AlignedFeatures,
    align_features,
    distil,
    fold_alignment,
    solve,
    source_only_evidence,
)
from transfer.adaptation.label_shift import calibrated, measure, under_target_prior
from transfer.adaptation.losses.mcc import MCC
from transfer.adaptation.losses.pseudo_labels import PseudoLabels
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.refinement.product_of_experts import combine
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence, log_softmax, unit
from transfer.adaptation.task import AdaptationTask
from transfer.adaptation.trainer import AdaptationTrainer
from transfer.config.adapt import StepsConfig
from transfer.freeze import Phase
from transfer.heads.heads import Heads

NETWORKS = 3
UNEVEN = 0.13  # variation of class shares, beyond chance, that are still there when misread images are put right
NEAR = 0.95  # agreement of probe and networks above which the shift is small: what follows errs as often itself
EXPERT = 0.25  # weight of these networks' log-probabilities, which MCC makes sharp; those of a tail have 1
TAIL_EPOCHS, TAIL_RATE = 0.6, 0.4  # of --epochs and --lr


def auto(
    stage: AdaptationTask, phase: Phase, config: StepsConfig, seed: int, bottleneck: int
) -> tuple[Heads, CandidateEvidence, list[str]]:
    """Return heads for pooled features of the target, what rules may see of them, and what to note."""
    frozen = stage.as_features()
    features = align_features(frozen, "standardise")
    alone = [source_only_evidence(frozen, kind) for kind in ("standardise", "none")]
    shift = measure(alone[0], seed=seed)
    uneven = shift.strong and shift.beyond_chance(_refined(stage, features, map(calibrated, alone)).mean(0)) >= UNEVEN
    if uneven:
        adapted = _refined(stage, features, map(under_target_prior, alone))
    else:
        adapted = networks = _confident(frozen, features, phase, config, seed, bottleneck)
    # without the few labels of the target, or it agreed with what is adapted however large the shift
    source = features.evidence(frozen, solve(frozen, features, target=False)).target_logits
    agreement = float((source.argmax(1) == adapted.argmax(1)).mean())
    note = f"auto: source classifier and adapted ones agree on {agreement:.1%} of the target: "
    if agreement >= NEAR:
        features = align_features(frozen, "none")
        probe = solve(frozen, features)
        note += "a small shift; source_only's is kept"
        return fold_alignment(probe, features.maps[-1]), features.evidence(frozen, probe), [note]
    if uneven:
        return _learnt(frozen, features, adapted, note + "class shares differ strongly, so that none is balanced")
    q = _combined(stage, features.target, features.labelled, [(EXPERT, networks)])
    if not stage.frozen:
        still = unit(features.target), unit(features.labelled)
        torch.manual_seed(seed)
        network = AdaptationNetwork(features.maps, stage.classes, bottleneck).to(stage.device)
        terms = [(1.0, MCC()), (1.0, PseudoLabels())]
        warm = AdaptationTrainer(frozen, network, phase, config, seed)
        list(warm.learn(terms, max(1, config.epochs // 3), pseudo=q, last=True))
        course = AdaptationTrainer(stage, network, phase, replace(config, lr=TAIL_RATE * config.lr), seed)
        epochs = max(1, round(TAIL_EPOCHS * config.epochs))
        ((_, evidence),) = course.learn(terms, epochs, pseudo=q, last=True)
        features = align_features(stage, "standardise")
        target, labelled = (
            np.hstack([before, unit(now)])
            for before, now in zip(still, (features.target, features.labelled), strict=True)
        )
        q = _combined(stage, target, labelled, [(EXPERT, networks), (1.0, log_softmax(evidence.target_logits))])
    return _learnt(stage, features, q, note + "refined on its geometry")


def _confident(
    stage: AdaptationTask, features: AlignedFeatures, phase: Phase, config: StepsConfig, seed: int, bottleneck: int
) -> np.ndarray:
    """Return the mean log-probabilities of networks that minimise class confusion on frozen features."""
    said = []
    for i in range(NETWORKS):
        torch.manual_seed(seed * NETWORKS + i)
        network = AdaptationNetwork(features.maps, stage.classes, bottleneck).to(stage.device)
        course = AdaptationTrainer(stage, network, phase, config, seed * NETWORKS + i)
        ((_, evidence),) = course.learn([(1.0, MCC())], config.epochs, last=True)
        said.append(log_softmax(evidence.target_logits))
    return np.mean(said, axis=0)


def _refined(stage: AdaptationTask, features: AlignedFeatures, said: Iterable[np.ndarray]) -> np.ndarray:
    """Return what classifiers' log-probabilities become on the target's geometry, with no class balanced."""
    return _combined(stage, features.target, features.labelled, [(0.5, logp) for logp in said], balance=0.0)


def _learnt(
    stage: AdaptationTask, features: AlignedFeatures, q: np.ndarray, note: str
) -> tuple[Heads, CandidateEvidence, list[str]]:
    heads = distil(stage, features, q)
    return fold_alignment(heads, features.maps[-1]), features.evidence(stage, heads), [note]


def _combined(
    stage: AdaptationTask,
    target: np.ndarray,
    labelled: np.ndarray,
    experts: Sequence[tuple[float, np.ndarray]],
    *,
    balance: float = 0.8,
) -> np.ndarray:
    """Return what :func:`combine` makes of what `experts` say of the target, its few labels held fast."""
    known = np.concatenate([np.full(len(target), -1), stage.labels[torch.from_numpy(stage.domains.labelled)].numpy()])
    nothing = np.zeros((len(labelled), len(stage.classes)))
    all_rows = [(weight, np.concatenate([said, nothing])) for weight, said in experts]
    return combine(np.concatenate([target, labelled]), all_rows, known=known, balance=balance)[: len(target)]


register_method("auto", "what this tool finds best: MCC and label propagation, see adaptation/auto.py", fit=auto)
