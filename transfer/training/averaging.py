"""Averages of weights during training (EMA, SWA), and the cycles of restarted schedules."""

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

SWA_START = 0.75  # share of the epochs before SWA starts (Izmailov et al. 2018)


class WeightAverage:
    """The mean of all trained tensors of a phase: parameters, and BatchNorm statistics that are not frozen.

    ``ema`` is Polyak's average over about ``1 / (1 - decay)`` steps. The decay at step t is
    ``min(decay, (1 + t) / (10 + t))``, so that random initial heads soon lose their weight. ``swa`` (Izmailov et al.
    2018) is the plain mean over the ends of the last epochs; BatchNorm statistics are then recomputed. Before the first
    average, and with ``none``, the weights are used unchanged.

    `model` is frozen for the phase, which has this number of `epochs`.
    """

    def __init__(self, model: TransferModel, config: LearnConfig, epochs: int) -> None:
        self.kind: Literal["none", "ema", "swa"] = config.average
        self.decay, self.epochs, self.count = config.ema_decay, epochs, 0
        self.model, self.live = model, {} if self.kind == "none" else trained_tensors(model)
        self.mean = [tensor.clone() for tensor in self._floats()]

    def after_step(self) -> None:
        """Add the weights after a step."""
        if self.kind == "ema":
            t = self.count + 1
            self._take(1 - min(self.decay, (1 + t) / (10 + t)))

    def after_epoch(self, epoch: int) -> None:
        """Add the weights after epoch number `epoch` of the phase, from 1."""
        if self.kind == "swa" and epoch > SWA_START * self.epochs:
            self._take(1 / (self.count + 1))

    @contextmanager
    def in_place(self, feed: Feed, rows: np.ndarray) -> Iterator[None]:
        """Give the model the mean; restore its weights bit for bit on leaving. SWA measures statistics on `rows`."""
        if not self.count:
            yield
            return
        live = {name: tensor.clone() for name, tensor in self.live.items()}
        try:
            for tensor, mean in zip(self._floats(), self.mean, strict=True):
                tensor.copy_(mean)
            if self.kind == "swa":
                measure_statistics(self.model, feed, rows)
            yield
        finally:
            for name, tensor in self.live.items():
                tensor.copy_(live[name])

    def state(self) -> dict[str, Any]:
        """Return the state of the average."""
        return {"count": self.count, "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.count = state["count"]
        for mean, saved in zip(self.mean, state["mean"], strict=True):
            mean.copy_(saved)

    def _take(self, weight: float) -> None:
        self.count += 1
        for mean, tensor in zip(self.mean, self._floats(), strict=True):
            mean.lerp_(tensor, weight)

    def _floats(self) -> list[Tensor]:
        return [tensor for tensor in self.live.values() if tensor.is_floating_point()]


def trained_tensors(model: TransferModel) -> dict[str, Tensor]:
    """Return the trained parameters of `model` and its norm statistics that are not frozen, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad} | {
        f"{path}.{name}": buffer for path, norm in _norms(model) for name, buffer in norm.named_buffers(recurse=False)
    }


@torch.no_grad()
def measure_statistics(model: TransferModel, feed: Feed, rows: np.ndarray) -> None:
    """Recompute the norm statistics that are not frozen with the present weights: the mean over batches of `rows`."""
    norms = [norm for _, norm in _norms(model) if isinstance(norm, nn.modules.batchnorm._NormBase)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    with SyncBatchNormMode() if feed.splits_batches else nullcontext(), freeze.refuse_single_values():
        for _, activation in feed.batches(rows, split=True):
            model.features(activation)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms(model: TransferModel) -> list[tuple[str, nn.Module]]:
    """Return the norm layers of `model` whose statistics are not frozen; sets training mode."""
    model.train()
    return [(path, module) for path, module in model.named_modules() if module.training and freeze.is_norm(module)]


def cycle_bounds(epoch: int, epochs: int, cycles: int) -> tuple[int, int]:
    """Return the number of the epoch before the cycle of `epoch`, and of the cycle's last epoch.

    `epochs` are divided into `cycles` whose lengths differ by at most one; the schedule restarts in each (SGDR,
    Loshchilov and Hutter 2017, with equal cycles as snapshot ensembles have them, Huang et al. 2017).

    Examples
    --------
    >>> [cycle_bounds(epoch, 7, 3) for epoch in (1, 3, 4, 5, 7)]
    [(0, 3), (0, 3), (3, 5), (3, 5), (5, 7)]
    """
    cycles = min(cycles, epochs)
    turn = (epoch - 1) * cycles // epochs
    return -(-turn * epochs // cycles), -(-(turn + 1) * epochs // cycles)
