"""AdaBN: the statistics that BatchNorm layers of the tail hold are taken from each domain's own images."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from transfer.adaptation.closed_form.alignment import fit_alignment
from transfer.adaptation.closed_form.classifier import AlignedFeatures, fold_alignment, solve_classifier
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import BATCH, AdaptationTask
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.heads.heads import Heads

NO_BATCH_NORM = (
    "adabn moves the statistics of BatchNorm layers above the frozen stages, and there are none: "
    "say --policy partial:2 or full, or take another method"
)


def solve_adabn(stage: AdaptationTask, phase: Phase) -> tuple[Heads, CandidateEvidence]:
    """Return heads solved on source features under the source's statistics, and what they answer under the target's.

    Li et al. 2017, algorithm 1. The backbone is left with the target's statistics.

    Raises
    ------
    TransferError
        No BatchNorm layer in the tail, or a domain with a single image.
    """
    backbone = stage.model.backbone
    norms = [
        module
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and backbone.stage_of(name) >= stage.model.cut
    ]
    if not norms:
        raise TransferError(NO_BATCH_NORM)
    domains = stage.domains
    parts = (domains.train, domains.val, domains.labelled, domains.unlabelled)
    rows = np.concatenate(parts)
    learnt = ~np.isin(rows, domains.val)
    pooled = torch.empty(len(rows), backbone.width, device=stage.device)
    stage.model.freeze(with_moving_statistics(phase))
    try:
        for name, side in zip((*domains.sources, domains.target), stage.sides(rows), strict=True):
            if (side & learnt).sum() < 2:
                raise TransferError(f"adabn takes statistics of each domain: {name} has fewer than two images to learn")
            recompute_statistics(stage, norms, rows[side & learnt])
            pooled[torch.from_numpy(side)] = stage.pooled(rows[side])
    finally:
        stage.model.freeze(phase)
    x = pooled.cpu().numpy()
    features = AlignedFeatures(fit_alignment("none", x), *np.split(x, np.cumsum([len(part) for part in parts[:-1]])))
    heads = solve_classifier(stage, features)
    return fold_alignment(heads, features.maps[-1]), features.evidence(stage, heads)


def with_moving_statistics(phase: Phase) -> Phase:
    """Return `phase` with the statistics of the stages that learn moving: what AdaBN declares."""
    return replace(
        phase, stages=tuple(s if s.train == "none" else replace(s, statistics="learning") for s in phase.stages)
    )


def recompute_statistics(stage: AdaptationTask, norms: list[nn.modules.batchnorm._BatchNorm], rows: np.ndarray) -> None:
    """Set the running statistics of `norms` to the mean over batches of `rows`."""
    rows = np.random.default_rng(0).permutation(rows)
    if len(rows) % BATCH == 1:
        rows = rows[:-1]  # a batch of one row need not have a variance
    momenta = [norm.momentum for norm in norms]
    stage.model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    try:
        with torch.no_grad():
            for _, activation in stage.batches(rows, BATCH, None, 0, 0):
                for norm in norms:
                    norm.training = True
                stage.model.features(activation)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


register_method(
    "adabn",
    "BatchNorm statistics of the target (Li et al. 2017)",
    fit=lambda stage, phase, *_: (*solve_adabn(stage, phase), []),
    moves_batch_norm=True,
)
