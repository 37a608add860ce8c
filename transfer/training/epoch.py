"""One epoch: every training row once, in drawn order, a step of the optimizer per batch."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer.config.train import LearnConfig
from transfer.data.images.batches import Augmentation
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.feature_cache import Feed
from transfer.freeze import Phase
from transfer.model import TransferModel
from transfer.runtime.distributed.batches import BatchPart, fork_rng_by_rank, get_local_rows, wrap_ddp
from transfer.runtime.distributed.sync_batch_norm import SyncBatchNormMode
from transfer.runtime.out_of_memory import run_in_parts, run_in_parts_distributed
from transfer.training import optimizers
from transfer.training.mixing import Labels, mix
from transfer.training.penalties.penalty import Penalty, PenaltyInputs, capture_outputs

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(crop_scale=None, flip=True, jitter=0.0),
    "crop": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.0),
    "colour": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.4),
    "pca": Augmentation(crop_scale=(0.35, 1.0), flip=True, pca=0.1),
    "scale": Augmentation(short_side=(256 / 224, 480 / 224), flip=True),
}


@dataclass(frozen=True)
class TrainingData:
    """What there is to learn from: a table, its images' digests, and which rows are for what."""

    table: ImageTable
    digests: np.ndarray
    train: np.ndarray
    val: np.ndarray


@dataclass
class EpochProgress:
    """How far an epoch is.

    Parameters
    ----------
    step : int
        Steps taken.
    total : float
        The sum of the losses of the rows so far.
    right, seen : dict of str to int
        By head, the rows so far that were answered rightly, and those whose label is known.
    rng : dict, optional
        Where the generator of the epoch's draws is.
    parts : int
        In how many parts batches are taken, for want of memory; that stays from epoch to epoch.
    """

    step: int = 0
    total: float = 0.0
    right: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    rng: dict[str, Any] | None = None
    parts: int = 1


def epoch(
    model: TransferModel,
    feed: Feed,
    data: TrainingData,
    labels: dict[str, Tensor],
    optimizer: Optimizer,
    phase: Phase,
    config: LearnConfig,
    place: tuple[int, int],
    draw: list[int],
    after_step: Callable[[], None] = lambda: None,
    penalties: Sequence[Penalty] = (),
    so_far: EpochProgress | None = None,
    failing: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Learn from each training row once, or from those left; return the epoch's loss, rate and training accuracies.

    Parameters
    ----------
    place : (int, int)
        The epoch's number, from 1, and how many the schedule runs over.
    draw : list of int
        What draws are seeded by.
    after_step : callable
        Called after each step of the optimizer.
    penalties : sequence of Penalty
        Added to the loss.
    so_far : EpochProgress, optional
        Go on from there; it is kept up to date.
    failing : callable
        Called where an image cannot be had, between two steps.
    """
    model.train()
    so_far = so_far or EpochProgress()
    so_far.parts = max(so_far.parts, config.accumulate)
    rng = np.random.default_rng(draw)
    rows = _drawn(data, config.balance, rng)
    weighted = row_weights(data, model) if config.balance == "loss" else None
    steps = math.ceil(len(rows) / feed.batch_size)
    device = next(model.heads.parameters()).device
    right, seen = (dict.fromkeys(labels, 0) | some for some in (so_far.right, so_far.seen))
    so_far.right, so_far.seen = right, seen
    asking = BatchLoss(model, feed, config, penalties)
    ask = wrap_ddp(asking) if feed.splits_batches else asking
    second_order = getattr(optimizer, "is_second_order", False)
    if second_order and feed.splits_batches:
        raise TransferError(f"--optimizer {config.optimizer} takes second derivatives, which stay within one process")
    learned = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    seed = int(rng.integers(2**31))
    batches = feed.batches(
        rows, augmentation=AUGMENTATIONS[config.augment], seed=seed, epoch=draw[-1], first=so_far.step, split=True
    )
    if so_far.rng:
        rng.bit_generator.state = so_far.rng

    def rate() -> float:
        progress = (place[0] - 1 + so_far.step / steps) / place[1]
        return config.lr * optimizers.course(config.schedule, min(progress, 1.0), config.warmup)

    for some, activation in _guarded(batches, failing):
        so_far.step += 1
        optimizers.set_rates(optimizer, phase, rate())
        index = torch.from_numpy(some)
        wanted = {name: label[index].to(device) for name, label in labels.items()}
        weights = {name: w[index].to(device) for name, w in weighted.items()} if weighted else None
        mixing = feed.splits_batches and bool(config.regularise.mixup or config.regularise.cutmix)
        activation = (
            feed.gather_batch(activation, len(some)) if mixing else activation
        )  # with other processes' rows, too
        activation, parts = mix(activation, Labels(wanted, weights), config.regularise, rng)
        activation = activation[get_local_rows(len(some))] if mixing else activation
        wanted = parts[0].wanted
        given = activation, parts, len(some), [*draw, so_far.step]

        def take(part: slice | BatchPart, given: Any = given) -> tuple[Tensor, dict[str, Tensor]]:
            loss, out = ask(*given, part if part != slice(0, given[2]) else None)
            loss.backward(create_graph=second_order)
            return loss.detach(), {name: values.detach() for name, values in out.items()}

        clear = partial(optimizer.zero_grad, set_to_none=True)
        if isinstance(optimizer, optimizers.LBFGS):
            loss, out = ask(*given)
        elif feed.splits_batches:
            loss, out = run_in_parts_distributed(take, len(some), so_far.parts, clear, ask)
        else:
            loss, out, so_far.parts = run_in_parts(take, len(some), so_far.parts, clear)
        if not bool(loss.isfinite()):
            return {"loss": float(loss.detach())}
        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.step(partial(ask, *given))
        else:
            if config.clip:
                nn.utils.clip_grad_norm_(learned, config.clip)
            optimizer.step()
        so_far.total += float(loss.detach()) * len(some)
        for name, spec in model.heads.specs.items():
            correct = spec.head_kind.correct_rows(out[name], wanted[name])
            if correct is not None:
                right[name] += int(correct.sum())
                seen[name] += int((wanted[name] >= 0).sum())
        so_far.rng = dict(rng.bit_generator.state)
        after_step()
    train = {name: round(right[name] / seen[name], 6) for name in labels if seen[name]}
    return {"loss": so_far.total / max(len(rows), 1), "rate": rate() if steps else 0.0, "train": train}


def _guarded(batches: Iterable[tuple[np.ndarray, Tensor]], failing: Callable[[], None]) -> Iterator[Any]:
    """Yield `batches`; call `failing` where the next one cannot be had."""
    try:
        yield from batches
    except Exception:
        failing()
        raise


class BatchLoss(nn.Module):
    """A batch's loss as a module, in whose backward pass DDP can average gradients.

    The tail runs over this process's own rows. What follows, heads and penalties, all processes do alike, on the
    features of all rows: a loss need be no sum over rows.
    """

    def __init__(self, model: TransferModel, feed: Feed, config: LearnConfig, penalties: Sequence[Penalty]) -> None:
        super().__init__()
        self.model, self.feed, self.config, self.penalties = model, feed, config, penalties

    def forward(
        self,
        activation: Tensor,
        parts: tuple[Labels, ...],
        count: int,
        key: list[int],
        part: slice | BatchPart | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of `count` rows, penalties included, and what each head put out.

        Parameters
        ----------
        activation : Tensor
            Of the rows that are this process's own.
        key : list of int
            What random draws within the tail are seeded by, where each process has its own.
        part : slice or BatchPart, optional
            The rows whose share of the loss it is to be.
        """
        model, config, device = self.model, self.config, activation.device
        totals: list[Any] = [None] * len(parts)
        share, sizes = 1.0, None
        if part is not None:
            totals = [model.heads.totals(some.wanted, some.weights) for some in parts]
            mine, every = (
                (part.local_rows, part.index) if isinstance(part, BatchPart) else (part, np.arange(count)[part])
            )
            sizes = part.sizes if isinstance(part, BatchPart) else None
            share, count, key = len(every) / count, len(every), [*key, int(every[0])]
            activation, parts = activation[mine], tuple(some.part(torch.from_numpy(every)) for some in parts)
        half = use_bfloat16(config.precision, device)
        paths = [path for penalty in self.penalties for path in penalty.maps]
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=half),
            capture_outputs(model.backbone.network, paths) as maps,
        ):
            with ExitStack() as stack:
                if self.feed.splits_batches:
                    stack.enter_context(SyncBatchNormMode())
                    stack.enter_context(fork_rng_by_rank(device, *key))
                features = model.features(activation)
            features = self.feed.gather_batch(features, count, sizes)
            out = model.heads(features)
        how: Any = {"smoothing": config.label_smoothing, "loss": config.loss}
        losses = [
            some.share * model.heads.loss(out, some.wanted, row_weights=some.weights, totals=total, **how)
            for some, total in zip(parts, totals, strict=True)
        ]
        step = PenaltyInputs(model, activation, features, parts, maps, sizes)
        return torch.stack([*losses, *(share * penalty(step) for penalty in self.penalties)]).sum(), out


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether the forward pass runs in bfloat16: on request, or where a GPU is made for it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def _drawn(data: TrainingData, balance: str, rng: np.random.Generator) -> np.ndarray:
    """Return the epoch's rows in order: each once, or drawn so that every object is as likely."""
    if balance != "sampling":
        return rng.permutation(data.train)
    objects = data.table.object[data.train]
    counts = np.bincount(objects[objects >= 0], minlength=len(data.table.objects))
    weight = np.where(objects >= 0, 1 / np.maximum(counts[objects], 1), 1 / max(counts.max(), 1))
    return rng.choice(data.train, size=len(data.train), p=weight / weight.sum())


def row_weights(data: TrainingData, model: TransferModel) -> dict[str, Tensor]:
    """Return per classification head the weight of every row: n / (classes * rows of its class) in training."""
    weights = {}
    for name, spec in model.heads.specs.items():
        if spec.head_kind.has_classes:
            values = data.table.targets[name].values
            counts = np.bincount(values[data.train][values[data.train] >= 0], minlength=len(spec.classes))
            each = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts[values], 1))
            weights[name] = torch.from_numpy(each).float()
    return weights
