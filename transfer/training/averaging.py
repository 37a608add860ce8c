"""Averages of weights during training (EMA, SWA) or of those before and after (WiSE-FT); cycles of schedules."""

from collections.abc import Callable, Iterator, Mapping
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
WISE_SHARES = tuple(i / 10 for i in range(11))  # of the way from the weights before a phase to those after it
WISE_DEFAULT = 0.5  # without validation images, as the paper recommends


class WeightAverage:
    """The mean of all trained tensors of a phase: parameters, and BatchNorm statistics that are not frozen.

    ``ema`` is Polyak's average over about ``1 / (1 - decay)`` steps. The decay at step t is
    ``min(decay, (1 + t) / (10 + t))``, so that random initial heads soon lose their weight. ``swa`` (Izmailov et al.
    2018) is the plain mean over the ends of the last epochs; BatchNorm statistics are then recomputed. Before the first
    average, and with ``none`` and ``wise_ft``, the weights are used unchanged.

    `model` is frozen for the phase, which has this number of `epochs`.
    """

    def __init__(self, model: TransferModel, config: LearnConfig, epochs: int) -> None:
        self.kind: Literal["none", "ema", "swa", "wise_ft"] = config.average
        self.decay, self.epochs, self.count = config.ema_decay, epochs, 0
        self.model, self.live = model, trained_tensors(model) if self.kind in ("ema", "swa") else {}
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


def interpolate_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights at `share` of the way from `before` to `after` (WiSE-FT, Wortsman et al. 2022, eq. 1).

    Norm statistics are interpolated too; what is no floating-point number, such as a count of batches, is of `after`.

    Examples
    --------
    >>> before, after = {"weight": torch.tensor([0.0, 4.0])}, {"weight": torch.tensor([1.0, 2.0])}
    >>> interpolate_weights(before, after, 0.25)["weight"].tolist()
    [0.25, 3.5]
    """
    if share in (0, 1):
        return dict(after if share else before)
    return {  # the weights of a resumed run are on the CPU
        name: before[name].to(end.device).lerp(end, share) if end.is_floating_point() else end.clone()
        for name, end in after.items()
    }


def choose_share(measure: Callable[[float], tuple[float, float] | None]) -> tuple[float, tuple[float, float] | None]:
    """Return the share of ``WISE_SHARES`` with the largest score that `measure` returns, the least of several; and it.

    Where the first has no score, because there are no validation images, it is ``WISE_DEFAULT``.
    """
    best = WISE_SHARES[0], measure(WISE_SHARES[0])
    if best[1] is None:
        return WISE_DEFAULT, None
    for share in WISE_SHARES[1:]:
        score = measure(share)
        if score is not None and best[1] is not None and score > best[1]:
            best = share, score
    return best


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
