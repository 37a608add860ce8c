"""The loss of one step: cross-entropy of labelled rows, and the losses of a method."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfer.adaptation.losses.base import AdaptationLoss, Batch
from transfer.adaptation.network import AdaptationNetwork
from transfer.adaptation.task import AdaptationTask
from transfer.errors import TransferError
from transfer.runtime.distributed.batches import fork_rng_by_rank

WeightedLosses = Sequence[tuple[float, AdaptationLoss]]

STRONG_DROPOUT = 0.5  # rate on pooled features, which stands for strong augmentation


class Diverged(TransferError):
    """The loss, or an output of the network, became NaN or infinite."""

    def __init__(self) -> None:
        super().__init__("the loss became NaN or infinite: try a lower --lr")


class StepLoss(nn.Module):
    """The loss of a step as a module, so that DDP averages gradients in its backward pass.

    The tail processes this process's own rows. Network and losses are computed in every process on the features of all
    rows, because few of these losses are sums over rows.

    Parameters
    ----------
    losses : sequence of (float, AdaptationLoss)
        Added to the cross-entropy of labelled rows, each with its weight.
    source : bool
        Whether source labels are used.
    split : bool
        Whether this process has only its own rows of a batch.
    """

    def __init__(
        self, task: AdaptationTask, network: AdaptationNetwork, losses: WeightedLosses, *, source: bool, split: bool
    ) -> None:
        super().__init__()
        self.task, self.network, self.source, self.split = task, network, source, split
        self.backbone = nn.ModuleList() if task.frozen else task.model.backbone
        self.weights, self.losses = [weight for weight, _ in losses], nn.ModuleList(loss for _, loss in losses)

    def forward(
        self, rows: np.ndarray, activation: Tensor, progress: float, q: Tensor | None, key: list[int]
    ) -> Tensor:
        """Return the loss of a step on `rows` of the table, of which `activation` has this process's own.

        `progress` is in [0, 1], `q` has class probabilities of all rows of the table, and `key` seeds random draws
        within the tail in several processes.
        """
        task, network = self.task, self.network
        network.train()
        if not task.frozen:
            task.model.train()
        index, device = torch.from_numpy(rows), activation.device
        domain, target, labels = (x[index].to(device) for x in (task.domain, task.target, task.labels))
        with fork_rng_by_rank(device, *key) if self.split else nullcontext():
            pooled = task.features(activation, len(rows), task.parts)
        features = network(pooled, domain)
        logits = network.classifier(features)
        if not bool(logits.isfinite().all()):
            raise Diverged
        strong = None
        if any(term.needs_strong for term in self.losses):
            strong = network.classifier(network(F.dropout(pooled, STRONG_DROPOUT), domain))
        batch = Batch(
            features,
            logits,
            labels if self.source else torch.where(target, labels, -1),
            target & (labels < 0),  # the few labelled rows, which are in every batch, would outweigh all others
            progress,
            strong,
            q[index].to(device) if q is not None else None,
        )
        loss = logits.sum() * 0.0
        for side in (~target, target):
            known = side & (batch.labels >= 0)
            if bool(known.any()):
                loss = loss + F.cross_entropy(logits[known], batch.labels[known])
        for weight, term in zip(self.weights, self.losses, strict=True):
            loss = loss + weight * term(batch)
        return loss
