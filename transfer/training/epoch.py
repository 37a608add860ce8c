"""One epoch: every training row once, in random order, one step of the optimizer per batch."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer.config.train import LearnConfig
from transfer.data.images.augment import Augmentation
from transfer.errors import TransferError
from transfer.feature_cache import Feed
from transfer.freeze import Phase, count_least_rows, refuse_single_values
from transfer.model import TransferModel
from transfer.runtime.distributed.batches import BatchPart, fork_rng_by_rank, get_local_rows, wrap_ddp
from transfer.runtime.distributed.sync_batch_norm import SyncBatchNormMode
from transfer.runtime.out_of_memory import run_in_parts, run_in_parts_distributed
from transfer.training import optimizers
from transfer.training.mixing import Labels, mix
from transfer.training.penalties.penalty import Penalty, PenaltyInputs, capture_outputs
from transfer.training.setup import TrainingData

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(crop_scale=None, flip=True, jitter=0.0),
    "crop": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.0),
    "colour": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.4),
    "pca": Augmentation(crop_scale=(0.35, 1.0), flip=True, pca=0.1),
    "scale": Augmentation(short_side=(256 / 224, 480 / 224), flip=True),
}


@dataclass
class EpochProgress:
    """The position within an epoch; only `parts` stays from epoch to epoch."""

    step: int = 0  # steps taken
    total: float = 0.0  # sum of the losses of the rows so far
    correct: dict[str, int] = field(default_factory=dict)  # by head, rows so far that were classified correctly
    seen: dict[str, int] = field(default_factory=dict)  # by head, rows so far whose label is known
    rng: dict[str, Any] | None = None  # state of the generator of the epoch's random draws
    parts: int = 1  # into which batches are divided to fit into memory


class MixedBatch(NamedTuple):
    """A batch after mixup or CutMix: activations of this process's rows, labels of all rows, the number of rows."""

    activation: Tensor
    labels: tuple[Labels, ...]
    size: int


@dataclass
class EpochTrainer:
    """Trains a model for epochs of one phase."""

    model: TransferModel
    feed: Feed
    data: TrainingData
    labels: dict[str, Tensor]  # by head, of all rows of the table
    optimizer: Optimizer
    phase: Phase
    config: LearnConfig
    penalties: Sequence[Penalty] = ()  # added to the loss
    after_step: Callable[[], None] = lambda: None  # called after each step of the optimizer
    on_failure: Callable[[], None] = lambda: None  # called where an image cannot be read, between two steps

    def run_epoch(
        self, position: tuple[int, int], key: list[int], progress: EpochProgress | None = None
    ) -> dict[str, Any]:
        """Train on each row once, or on the rows that are left; return loss, learning rate and training accuracies.

        `position` is the epoch's number, from 1, and how many epochs the schedule spans. `key` seeds the random draws;
        the epoch's number is its last entry. Training continues from `progress`, which is updated.
        """
        self.model.train()
        config, progress = self.config, progress or EpochProgress()
        progress.parts = max(progress.parts, config.accumulate)
        rng = np.random.default_rng(key)
        rows = _draw_rows(self.data, config.balance, rng)
        weights = row_weights(self.data, self.model, config.balance)
        steps = math.ceil(len(rows) / self.feed.batch_size)
        progress.correct = dict.fromkeys(self.labels, 0) | progress.correct
        progress.seen = dict.fromkeys(self.labels, 0) | progress.seen
        compute_loss = self._loss_module()
        seed, augmentation = int(rng.integers(2**31)), AUGMENTATIONS[config.augment]
        batches = self.feed.batches(
            rows, augmentation=augmentation, seed=seed, epoch=key[-1], first=progress.step, split=True
        )
        if progress.rng:
            rng.bit_generator.state = progress.rng

        def rate() -> float:
            done = (position[0] - 1 + progress.step / steps) / position[1]
            return config.lr * optimizers.schedule_factor(config.schedule, min(done, 1.0), config.warmup)

        for batch_rows, activation in _call_on_failure(batches, self.on_failure):
            progress.step += 1
            optimizers.set_rates(self.optimizer, self.phase, rate())
            batch = self._mix(batch_rows, activation, weights, rng)
            loss, out = self._step(compute_loss, batch, [*key, progress.step], progress)
            if not bool(loss.isfinite()):
                return {"loss": float(loss.detach())}
            progress.total += float(loss.detach()) * batch.size
            self._count_correct(progress, out, batch.labels[0].wanted)
            progress.rng = dict(rng.bit_generator.state)
            self.after_step()
        correct, seen = progress.correct, progress.seen
        train = {name: round(correct[name] / seen[name], 6) for name in self.labels if seen[name]}
        return {"loss": progress.total / max(len(rows), 1), "rate": rate() if steps else 0.0, "train": train}

    def _loss_module(self) -> nn.Module:
        """Return the module that computes the loss of a batch, with averaged gradients in several processes."""
        if getattr(self.optimizer, "is_second_order", False) and self.feed.splits_batches:
            name = self.config.optimizer
            raise TransferError(f"--optimizer {name} takes second derivatives, which work in one process only")
        loss = BatchLoss(self.model, self.feed, self.config, self.penalties)
        return wrap_ddp(loss) if self.feed.splits_batches else loss

    def _mix(
        self, rows: np.ndarray, activation: Tensor, weights: dict[str, Tensor], rng: np.random.Generator
    ) -> MixedBatch:
        """Return the batch of `rows` with labels, mixed as the config says."""
        device, index = next(self.model.heads.parameters()).device, torch.from_numpy(rows)
        wanted = {name: label[index].to(device) for name, label in self.labels.items()}
        row_weight = {name: weight[index].to(device) for name, weight in weights.items()} or None
        regularise = self.config.regularise
        across = self.feed.splits_batches and bool(regularise.mixup or regularise.cutmix)
        activation = self.feed.gather_batch(activation, len(rows)) if across else activation
        activation, labels = mix(activation, Labels(wanted, row_weight), regularise, rng)
        activation = activation[get_local_rows(len(rows))] if across else activation
        return MixedBatch(activation, labels, len(rows))

    def _step(
        self, compute_loss: nn.Module, batch: MixedBatch, key: list[int], progress: EpochProgress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take a step of the optimizer, unless the loss is not finite; return the loss and the heads' outputs."""
        optimizer, second_order = self.optimizer, getattr(self.optimizer, "is_second_order", False)
        arguments = (*batch, key)

        def backward(part: slice | BatchPart) -> tuple[Tensor, dict[str, Tensor]]:
            loss, out = compute_loss(*arguments, part if part != slice(0, batch.size) else None)
            loss.backward(create_graph=second_order)
            return loss.detach(), {name: values.detach() for name, values in out.items()}

        clear = partial(optimizer.zero_grad, set_to_none=True)
        if isinstance(optimizer, optimizers.LBFGS):
            loss, out = compute_loss(*arguments)
        elif self.feed.splits_batches:
            loss, out = run_in_parts_distributed(backward, batch.size, progress.parts, clear, compute_loss)
        else:
            least = count_least_rows(self.model)
            loss, out, progress.parts = run_in_parts(backward, batch.size, progress.parts, clear, least)
        if not bool(loss.isfinite()):
            return loss, out
        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.step(partial(compute_loss, *arguments))
            return loss, out
        if self.config.clip:
            trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            nn.utils.clip_grad_norm_(trained, self.config.clip)
        optimizer.step()
        return loss, out

    def _count_correct(self, progress: EpochProgress, out: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
        for name, spec in self.model.heads.specs.items():
            correct = spec.head_kind.correct_rows(out[name], wanted[name])
            if correct is not None:
                progress.correct[name] += int(correct.sum())
                progress.seen[name] += int((wanted[name] >= 0).sum())


def row_weights(data: TrainingData, model: TransferModel, balance: str) -> dict[str, Tensor]:
    """Return per classification head the weight of every row, where rows are weighted.

    With `balance` ``"loss"`` it is n / (classes * rows of its class) in training, times that of a pseudo-label.
    """
    weights: dict[str, Tensor] = {}
    for name, spec in model.heads.specs.items():
        if balance == "loss" and spec.head_kind.has_classes:
            values = data.table.targets[name].values
            counts = np.bincount(values[data.train][values[data.train] >= 0], minlength=len(spec.classes))
            each = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts[values], 1))
            weights[name] = torch.from_numpy(each).float()
        if name in data.weights:
            weights[name] = weights.get(name, 1.0) * torch.from_numpy(data.weights[name])
    return weights


def _call_on_failure(batches: Iterable[tuple[np.ndarray, Tensor]], on_failure: Callable[[], None]) -> Iterator[Any]:
    """Yield `batches`; call `on_failure` where the next one cannot be read."""
    try:
        yield from batches
    except Exception:
        on_failure()
        raise


class BatchLoss(nn.Module):
    """The loss of a batch as a module, so that DDP averages gradients in its backward pass.

    The tail processes this process's own rows. Heads and penalties are computed in every process on the features of all
    rows, so a loss need not be a sum over rows.
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
        """Return the loss of a batch of `count` rows, with penalties, and the output of each head.

        `activation` is of this process's own rows; `key` seeds random draws within the tail in several processes. With
        `part`, only these rows' share of the loss is returned.
        """
        model, config, device = self.model, self.config, activation.device
        totals: list[Any] = [None] * len(parts)
        share, sizes = 1.0, None
        if part is not None:
            totals = [model.heads.totals(each.wanted, each.weights) for each in parts]
            if isinstance(part, BatchPart):
                every, local, sizes = part.index, part.local_rows, part.sizes
            else:
                every, local = np.arange(count)[part], part
            share, count, key = len(every) / count, len(every), [*key, int(every[0])]
            activation, parts = activation[local], tuple(each.take(torch.from_numpy(every)) for each in parts)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(config.precision, device))
        paths = [path for penalty in self.penalties for path in penalty.maps]
        with autocast, capture_outputs(model.backbone.network, paths) as maps:
            with ExitStack() as stack:
                if self.feed.splits_batches:
                    stack.enter_context(SyncBatchNormMode())
                    stack.enter_context(fork_rng_by_rank(device, *key))
                stack.enter_context(refuse_single_values())
                features = model.features(activation)
            features = self.feed.gather_batch(features, count, sizes)
            out = model.heads(features)
        how: Any = {"smoothing": config.label_smoothing, "loss": config.loss}
        losses = [
            each.share * model.heads.loss(out, each.wanted, row_weights=each.weights, totals=total, **how)
            for each, total in zip(parts, totals, strict=True)
        ]
        inputs = PenaltyInputs(model, activation, features, parts, maps, sizes)
        return torch.stack([*losses, *(share * penalty(inputs) for penalty in self.penalties)]).sum(), out


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether the forward pass runs in bfloat16: on request, or under ``auto`` where a GPU supports it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def _draw_rows(data: TrainingData, balance: str, rng: np.random.Generator) -> np.ndarray:
    """Return the epoch's rows in order: each once, or sampled so that every object is equally likely."""
    if balance != "sampling":
        return rng.permutation(data.train)
    objects = data.table.object[data.train]
    counts = np.bincount(objects[objects >= 0], minlength=len(data.table.objects))
    weight = np.where(objects >= 0, 1 / np.maximum(counts[objects], 1), 1 / max(counts.max(), 1))
    return rng.choice(data.train, size=len(data.train), p=weight / weight.sum())
