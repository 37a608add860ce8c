"""Weights averaged along the way, and schedules that start over to end in several places."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from transfer import freeze
from transfer.config.train import LearnConfig
from transfer.feature_cache import Feed
from transfer.model import TransferModel
from transfer.runtime.distributed.sync_batch_norm import SyncBatchNormMode

SWA_START = 0.75  # Izmailov et al. 2018 begin to average after three quarters of the epochs


class WeightAverage:
    """The mean of all that learns in a phase: parameters, and statistics of BatchNorm where these learn.

    ``ema`` is Polyak's average with a memory of ``1 / (1 - decay)`` steps. Its first steps count for more, as
    ``min(decay, (1 + t) / (10 + t))`` is the decay at step t, so that random heads are soon forgotten. ``swa``
    (Izmailov et al. 2018) is the plain mean over the ends of the phase's last epochs; BatchNorm statistics are measured
    anew for it. Before any of these, and with ``none``, it is the weights as they are.

    Parameters
    ----------
    model : TransferModel
        Frozen as the phase wants it.
    config : LearnConfig
    epochs : int
        Of the phase.
    """

    def __init__(self, model: TransferModel, config: LearnConfig, epochs: int) -> None:
        self.kind: Literal["none", "ema", "swa"] = config.average
        self.decay, self.epochs, self.count = config.ema_decay, epochs, 0
        self.model, self.live = model, {} if self.kind == "none" else trained_tensors(model)
        self.mean = [tensor.clone() for tensor in self._floats()]

    def after_step(self) -> None:
        """Take the weights in as they are after a step."""
        if self.kind == "ema":
            t = self.count + 1
            self._take(1 - min(self.decay, (1 + t) / (10 + t)))

    def after_epoch(self, epoch: int) -> None:
        """Take the weights in as they are after the phase's epoch number `epoch`, from 1."""
        if self.kind == "swa" and epoch > SWA_START * self.epochs:
            self._take(1 / (self.count + 1))

    @contextmanager
    def in_place(self, feed: Feed, rows: np.ndarray) -> Iterator[None]:
        """Let the model have the mean; afterwards its own weights again, to the bit.

        Parameters
        ----------
        feed : Feed
        rows : ndarray of int64
            By which statistics are measured.
        """
        if not self.count:
            yield
            return
        own = {name: tensor.clone() for name, tensor in self.live.items()}
        try:
            for tensor, mean in zip(self._floats(), self.mean, strict=True):
                tensor.copy_(mean)
            if self.kind == "swa":
                measure_statistics(self.model, feed, rows)
            yield
        finally:
            for name, tensor in self.live.items():
                tensor.copy_(own[name])

    def state(self) -> dict[str, Any]:
        """Return where the average is."""
        return {"count": self.count, "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.count = state["count"]
        for mine, mean in zip(self.mean, state["mean"], strict=True):
            mine.copy_(mean)

    def _take(self, weight: float) -> None:
        self.count += 1
        for mean, tensor in zip(self.mean, self._floats(), strict=True):
            mean.lerp_(tensor, weight)

    def _floats(self) -> list[Tensor]:
        return [tensor for tensor in self.live.values() if tensor.is_floating_point()]


def trained_tensors(model: TransferModel) -> dict[str, Tensor]:
    """Return the parameters of `model` that learn as it is frozen now, and the norm statistics that do, by name."""
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for path, norm in _norms(model):
        found |= {f"{path}.{name}": buffer for name, buffer in norm.named_buffers(recurse=False)}
    return found


@torch.no_grad()
def measure_statistics(model: TransferModel, feed: Feed, rows: np.ndarray) -> None:
    """Set the norm statistics that learn to what `rows` give with the present weights: the mean over batches."""
    norms = [norm for _, norm in _norms(model) if isinstance(norm, nn.modules.batchnorm._NormBase)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all, each batch as much as the other
    with SyncBatchNormMode() if feed.splits_batches else nullcontext():
        for _, activation in feed.batches(rows, split=True):
            model.features(activation)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms(model: TransferModel) -> list[tuple[str, nn.Module]]:
    """Return the norm layers of `model` whose statistics learn; it is in training mode after this."""
    model.train()
    return [(path, module) for path, module in model.named_modules() if module.training and freeze.is_norm(module)]


def cycle_bounds(epoch: int, epochs: int, cycles: int) -> tuple[int, int]:
    """Return after which epoch the cycle of epoch number `epoch` begins, and with which it ends.

    `epochs` are shared out over `cycles` that differ by one at most; the schedule runs through each of them (SGDR,
    Loshchilov and Hutter 2017, with equal cycles as snapshot ensembles have them, Huang et al. 2017).

    Examples
    --------
    >>> [cycle_bounds(epoch, 7, 3) for epoch in (1, 3, 4, 5, 7)]
    [(0, 3), (0, 3), (3, 5), (3, 5), (5, 7)]
    """
    cycles = min(cycles, epochs)
    turn = (epoch - 1) * cycles // epochs
    return -(-turn * epochs // cycles), -(-(turn + 1) * epochs // cycles)
