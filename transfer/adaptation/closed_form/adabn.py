"""AdaBN: BatchNorm statistics of the tail from each domain's own images (Li et al. 2017)."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from transfer.adaptation.closed_form.classifier import align_features, fold_alignment, solve_and_estimate
from transfer.adaptation.registry import register_method
from transfer.adaptation.selection.evidence import CandidateEvidence
from transfer.adaptation.task import EVALUATION_BATCH, AdaptationTask
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.heads.heads import Heads

NO_BATCH_NORM = (
    "adabn moves the statistics of BatchNorm layers above the frozen stages, and there are none: "
    "say --policy partial:2 or full, or take another method"
)


def solve_adabn(task: AdaptationTask, phase: Phase) -> tuple[Heads, CandidateEvidence, list[str], float | None]:
    """Return heads solved on source features under the source's statistics, and their evidence under the target's.

    Beside them no notes, and their accuracy on the target as estimated without its labels.

    Li et al. 2017, algorithm 1. The backbone then has the target's statistics.

    Raises
    ------
    TransferError
        No BatchNorm layer in the tail, or a domain with a single image.
    """
    backbone = task.model.backbone
    norms = [
        module
        for name, module in backbone.network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and backbone.stage_of(name) >= task.model.cut
    ]
    if not norms:
        raise TransferError(NO_BATCH_NORM)
    domains = task.domains

    def pool_by_domain(rows: np.ndarray) -> torch.Tensor:
        pooled = torch.empty(len(rows), backbone.width, device=task.device)
        fitting = ~np.isin(rows, domains.val)
        for name, side in zip((*domains.sources, domains.target), task.sides(rows), strict=True):
            if (side & fitting).sum() < 2:
                raise TransferError(
                    f"adabn takes statistics of each domain: {name} has fewer than two images to train on"
                )
            recompute_statistics(task, norms, rows[side & fitting])
            pooled[torch.from_numpy(side)] = task.pooled(rows[side])
        return pooled

    task.model.freeze(with_moving_statistics(phase))
    try:
        features = align_features(task, "none", pool_by_domain)
    finally:
        task.model.freeze(phase)
    heads, accuracy = solve_and_estimate(task, features)
    return fold_alignment(heads, features.maps[-1]), features.evidence(task, heads), [], accuracy


def with_moving_statistics(phase: Phase) -> Phase:
    """Return `phase` with moving statistics in the trained stages, as AdaBN declares them."""
    return replace(
        phase, stages=tuple(s if s.train == "none" else replace(s, statistics="learning") for s in phase.stages)
    )


def recompute_statistics(task: AdaptationTask, norms: list[nn.modules.batchnorm._BatchNorm], rows: np.ndarray) -> None:
    """Set the running statistics of `norms` to the mean over batches of `rows`."""
    rows = np.random.default_rng(0).permutation(rows)
    if len(rows) % EVALUATION_BATCH == 1:
        rows = rows[:-1]  # a batch of one row may have no variance
    momenta = [norm.momentum for norm in norms]
    task.model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    try:
        with torch.no_grad():
            for _, activation in task.batches(rows, EVALUATION_BATCH, None, 0, 0):
                for norm in norms:
                    norm.training = True
                task.model.features(activation)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


register_method(
    "adabn",
    "BatchNorm statistics of the target (Li et al. 2017)",
    fit=lambda task, phase, *_: solve_adabn(task, phase),
    moves_batch_norm=True,
)
