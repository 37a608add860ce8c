"""One epoch: every training row once, in drawn order, a step of the optimizer per batch."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer.cache import Feed
from transfer.config import LearnConfig
from transfer.data.images import Augmentation
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.freeze import Phase
from transfer.learn import optimizers
from transfer.learn.mixing import Labels, mix
from transfer.learn.penalties.penalty import Penalty, Step, watched
from transfer.model import TransferModel
from transfer.parallel.norms import Synced
from transfer.parallel.rows import averaged, own, own_draws

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(crop_scale=None, flip=True, jitter=0.0),
    "crop": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.0),
    "colour": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.4),
    "pca": Augmentation(crop_scale=(0.35, 1.0), flip=True, pca=0.1),
    "scale": Augmentation(short_side=(256 / 224, 480 / 224), flip=True),
}


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from: a table, its images' digests, and which rows are for what."""

    table: ImageTable
    digests: np.ndarray
    train: np.ndarray
    val: np.ndarray


def epoch(
    model: TransferModel,
    feed: Feed,
    lesson: Lesson,
    labels: dict[str, Tensor],
    optimizer: Optimizer,
    phase: Phase,
    config: LearnConfig,
    place: tuple[int, int],
    draw: list[int],
    after_step: Callable[[], None] = lambda: None,
    penalties: Sequence[Penalty] = (),
) -> dict[str, Any]:
    """Learn from each training row once; return the epoch's loss, rate and training accuracies.

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
    """
    model.train()
    rng = np.random.default_rng(draw)
    rows = _drawn(lesson, config.balance, rng)
    weighted = row_weights(lesson, model) if config.balance == "loss" else None
    steps = math.ceil(len(rows) / feed.batch_size)
    device = next(model.heads.parameters()).device
    total, right, seen = 0.0, dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    asking = _Asking(model, feed, config, penalties)
    ask = averaged(asking) if feed.split else asking
    second_order = getattr(optimizer, "is_second_order", False)
    if second_order and feed.split:
        raise TransferError(f"--optimizer {config.optimizer} takes second derivatives, which stay within one process")
    learned = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    batches = feed.batches(
        rows, augmentation=AUGMENTATIONS[config.augment], seed=int(rng.integers(2**31)), epoch=draw[-1], split=True
    )
    rate = 0.0
    for step, (some, activation) in enumerate(batches):
        progress = (place[0] - 1 + (step + 1) / steps) / place[1]
        rate = config.lr * optimizers.course(config.schedule, min(progress, 1.0), config.warmup)
        optimizers.set_rates(optimizer, phase, rate)
        index = torch.from_numpy(some)
        wanted = {name: label[index].to(device) for name, label in labels.items()}
        weights = {name: w[index].to(device) for name, w in weighted.items()} if weighted else None
        mixing = feed.split and bool(config.regularise.mixup or config.regularise.cutmix)
        activation = feed.whole(activation, len(some)) if mixing else activation  # with other processes' rows, too
        activation, parts = mix(activation, Labels(wanted, weights), config.regularise, rng)
        activation = activation[own(len(some))] if mixing else activation
        wanted = parts[0].wanted
        given = activation, parts, len(some), [*draw, step]
        loss, out = ask(*given)
        if not bool(loss.isfinite()):
            return {"loss": float(loss.detach())}
        if isinstance(optimizer, optimizers.LBFGS):
            optimizer.step(partial(ask, *given))
        else:
            optimizer.zero_grad(set_to_none=True)
            loss.backward(create_graph=second_order)
            if config.clip:
                nn.utils.clip_grad_norm_(learned, config.clip)
            optimizer.step()
        after_step()
        total += float(loss.detach()) * len(some)
        for name, spec in model.heads.specs.items():
            if spec.kind == "softmax":
                right[name] += int((out[name].argmax(1) == wanted[name]).sum())
                seen[name] += int((wanted[name] >= 0).sum())
    train = {name: round(right[name] / seen[name], 6) for name in labels if seen[name]}
    return {"loss": total / max(len(rows), 1), "rate": rate, "train": train}


class _Asking(nn.Module):
    """A batch's loss as a module, in whose backward pass DDP can average gradients.

    The tail runs over this process's own rows. What follows, heads and penalties, all processes do alike, on the
    features of all rows: a loss need be no sum over rows.
    """

    def __init__(self, model: TransferModel, feed: Feed, config: LearnConfig, penalties: Sequence[Penalty]) -> None:
        super().__init__()
        self.model, self.feed, self.config, self.penalties = model, feed, config, penalties

    def forward(
        self, activation: Tensor, parts: tuple[Labels, ...], count: int, key: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch of `count` rows, penalties included, and what each head put out.

        Parameters
        ----------
        activation : Tensor
            Of the rows that are this process's own.
        key : list of int
            What random draws within the tail are seeded by, where each process has its own.
        """
        model, config, device = self.model, self.config, activation.device
        half = use_bfloat16(config.precision, device)
        paths = [path for penalty in self.penalties for path in penalty.maps]
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=half),
            watched(model.backbone.network, paths) as maps,
        ):
            with ExitStack() as stack:
                if self.feed.split:
                    stack.enter_context(Synced())
                    stack.enter_context(own_draws(device, *key))
                features = model.features(activation)
            features = self.feed.whole(features, count)
            out = model.heads(features)
        how: Any = {"smoothing": config.label_smoothing, "kind": config.loss}
        losses = [part.share * model.heads.loss(out, part.wanted, row_weights=part.weights, **how) for part in parts]
        step = Step(model, activation, features, parts, maps)
        return torch.stack([*losses, *(penalty(step) for penalty in self.penalties)]).sum(), out


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether the forward pass runs in bfloat16: on request, or where a GPU is made for it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def _drawn(lesson: Lesson, balance: str, rng: np.random.Generator) -> np.ndarray:
    """Return the epoch's rows in order: each once, or drawn so that every object is as likely."""
    if balance != "sampling":
        return rng.permutation(lesson.train)
    objects = lesson.table.object[lesson.train]
    counts = np.bincount(objects[objects >= 0], minlength=len(lesson.table.objects))
    weight = np.where(objects >= 0, 1 / np.maximum(counts[objects], 1), 1 / max(counts.max(), 1))
    return rng.choice(lesson.train, size=len(lesson.train), p=weight / weight.sum())


def row_weights(lesson: Lesson, model: TransferModel) -> dict[str, Tensor]:
    """Return per classification head the weight of every row: n / (classes * rows of its class) in training."""
    weights = {}
    for name, spec in model.heads.specs.items():
        if spec.kind != "regression":
            values = lesson.table.targets[name].values
            counts = np.bincount(values[lesson.train][values[lesson.train] >= 0], minlength=len(spec.classes))
            each = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts[values], 1))
            weights[name] = torch.from_numpy(each).float()
    return weights
