"""The one loop: every policy is a plan of phases, and learns here."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer import freeze
from transfer.cache import Feed, TrunkCache
from transfer.config import LearnConfig
from transfer.data.images import Augmentation
from transfer.data.table import ImageTable
from transfer.evaluate.answers import answer, judge, score, targets
from transfer.freeze import FreezePlan, Phase
from transfer.learn import optimizers
from transfer.model import TransferModel

log = logging.getLogger(__name__)

AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(crop_scale=None, flip=True, jitter=0.0),
    "crop": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.0),
    "colour": Augmentation(crop_scale=(0.35, 1.0), flip=True, jitter=0.4),
}
SCALE_ROWS = 1024


@dataclass(frozen=True)
class Lesson:
    """What there is to learn from: a table, its images' digests, and which rows are for what."""

    table: ImageTable
    digests: np.ndarray
    train: np.ndarray
    val: np.ndarray


@dataclass
class Fit:
    """What happened.

    Parameters
    ----------
    epochs : list of dict
        A line per epoch, as in metrics.jsonl.
    best : list of int
        For each phase up to the one chosen, after how many of its epochs the weights were best.
    moved : tuple of str
        Names of frozen tensors that moved: none, unless something is wrong (law 1).
    stopped : str
        Why training stopped early with an error, if it did.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best: list[int] = field(default_factory=list)
    moved: tuple[str, ...] = ()
    stopped: str = ""


def fit(
    model: TransferModel,
    plan: FreezePlan,
    lesson: Lesson,
    config: LearnConfig,
    cache: TrunkCache,
    *,
    seed: int = 0,
    repeat: list[int] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Fit:
    """Teach `model` under `plan`; leave it with the weights of the epoch that was best on the validation rows.

    Without validation rows the last epoch counts. A loss that turns NaN or infinite stops training; the last good
    weights are kept and `stopped` says so.

    Parameters
    ----------
    repeat : list of int, optional
        Learn for just so many epochs in each phase, the rate's course run through in these, choosing nothing: how
        ``--refit`` repeats a chosen run.
    on_epoch : callable
        Gets each epoch's line.
    """
    torch.manual_seed(seed)
    result = Fit()
    optimizer = optimizers.build(model, plan, config)
    before = freeze.frozen_tensors(model.backbone, plan.phases)
    moving = [name for name in model.state_dict() if name.removeprefix("backbone.network.") not in before]
    labels = targets(lesson.table, model)
    top = (-math.inf, -math.inf)
    good, chosen = _copy(model, moving), 0
    done: list[int] = []
    for number, phase in enumerate(plan.phases if repeat is None else plan.phases[: len(repeat)]):
        model.freeze(phase)
        feed = cache.feed(
            model, lesson.table.paths, lesson.digests, batch_size=config.batch_size, workers=config.workers
        )
        if number == 0 and plan.pretrained:
            _scale_heads(model, feed, lesson.train, seed)
        held = freeze.frozen_tensors(model.backbone, (phase,))
        length = repeat[number] if repeat else max(1, round(config.epochs * phase.share))
        here, best_here, good_here = (-math.inf, -math.inf), 0, good
        for epoch in range(1, length + 1):
            began = time.perf_counter()
            line: dict[str, Any] = {"phase": phase.name, "epoch": len(result.epochs) + 1}
            line |= _epoch(
                model, feed, lesson, labels, optimizer, phase, config, (epoch, length), [seed, number, epoch]
            )
            if not _finite(model, moving):  # the last step broke them, which no loss has seen yet
                line["loss"] = math.nan
            if not math.isfinite(line["loss"]):
                kept = f"epoch {chosen}" if chosen else "the start"
                result.stopped = (
                    f"the loss became {line['loss']} in epoch {line['epoch']} (lr {config.lr:g}); "
                    f"the weights of {kept} are kept; try a lower --lr"
                )
                break
            value = (float(number), float(epoch))
            if repeat is None and len(lesson.val):
                answers, line["val_loss"] = answer(model, feed, lesson.val, labels)
                report = judge(lesson.table.take(lesson.val), answers, intervals=False)
                line["val"] = {name: round(r.get("accuracy", r.get("r2", 0.0)), 6) for name, r in report.items()}
                value = (score(report), -line["val_loss"])
            line["seconds"] = round(time.perf_counter() - began, 3)
            result.epochs.append(line)
            on_epoch(line)
            if value > here:
                here, best_here, good_here = value, epoch, _copy(model, moving)
                if value > top:
                    top, good, chosen, result.best = value, good_here, line["epoch"], [*done, epoch]
            elif config.patience and epoch - best_here >= config.patience:
                break
        result.moved += freeze.changed(held, freeze.frozen_tensors(model.backbone, (phase,)))
        if result.stopped:
            break
        done.append(best_here)
        model.load_state_dict(good_here, strict=False)
    model.load_state_dict(good, strict=False)
    model.eval()
    result.moved += freeze.changed(before, freeze.frozen_tensors(model.backbone, plan.phases))
    return result


def _epoch(
    model: TransferModel,
    feed: Feed,
    lesson: Lesson,
    labels: dict[str, Tensor],
    optimizer: Optimizer,
    phase: Phase,
    config: LearnConfig,
    place: tuple[int, int],
    draw: list[int],
) -> dict[str, Any]:
    """Learn from each training row once; return the epoch's loss, rate and training accuracies."""
    model.train()
    rng = np.random.default_rng(draw)
    rows = _drawn(lesson, config.balance, rng)
    weights = _row_weights(lesson, model) if config.balance == "loss" else None
    steps = math.ceil(len(rows) / config.batch_size)
    device = next(model.heads.parameters()).device
    half = use_bfloat16(config.precision, device)
    total, right, seen = 0.0, dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    learned = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    batches = feed.batches(
        rows, augmentation=AUGMENTATIONS[config.augment], seed=int(rng.integers(2**31)), epoch=draw[-1]
    )
    rate = 0.0
    for step, (some, activation) in enumerate(batches):
        progress = (place[0] - 1 + (step + 1) / steps) / place[1]
        rate = config.lr * optimizers.course(config.schedule, min(progress, 1.0), config.warmup)
        optimizers.set_rates(optimizer, phase, rate)
        index = torch.from_numpy(some)
        wanted = {name: label[index].to(device) for name, label in labels.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            out = model(activation)
        row_weights = {name: w[index].to(device) for name, w in weights.items()} if weights else None
        loss = model.heads.loss(out, wanted, smoothing=config.label_smoothing, row_weights=row_weights)
        if not bool(loss.isfinite()):
            return {"loss": float(loss.detach())}
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip:
            nn.utils.clip_grad_norm_(learned, config.clip)
        optimizer.step()
        total += float(loss.detach()) * len(some)
        for name, spec in model.heads.specs.items():
            if spec.kind == "softmax":
                right[name] += int((out[name].argmax(1) == wanted[name]).sum())
                seen[name] += int((wanted[name] >= 0).sum())
    train = {name: round(right[name] / seen[name], 6) for name in labels if seen[name]}
    return {"loss": total / max(len(rows), 1), "rate": rate, "train": train}


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


def _row_weights(lesson: Lesson, model: TransferModel) -> dict[str, Tensor]:
    """Return per classification head the weight of every row: n / (classes * rows of its class) in training."""
    weights = {}
    for name, spec in model.heads.specs.items():
        if spec.kind != "regression":
            values = lesson.table.targets[name].values
            counts = np.bincount(values[lesson.train][values[lesson.train] >= 0], minlength=len(spec.classes))
            each = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts[values], 1))
            weights[name] = torch.from_numpy(each).float()
    return weights


def _scale_heads(model: TransferModel, feed: Feed, rows: np.ndarray, seed: int) -> None:
    model.eval()
    some = np.random.default_rng(seed).permutation(rows)[:SCALE_ROWS]
    with torch.inference_mode():
        features = torch.cat([model.features(activation).float() for _, activation in feed.batches(some)])
    model.heads.scale_to(features)


def _finite(model: nn.Module, names: list[str]) -> bool:
    state = model.state_dict()
    return all(bool(state[name].isfinite().all()) for name in names)


def _copy(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: state[name].detach().clone() for name in names}
