"""Optimizers over named parameter groups, and the learning rate's course."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from transfer import freeze
from transfer.config import LearnConfig
from transfer.freeze import FreezePlan, Phase
from transfer.model import TransferModel

HEADS = -1


def groups(model: TransferModel, plan: FreezePlan, weight_decay: float) -> list[dict[str, Any]]:
    """Return a group per stage (and one for the heads) and decay, over all that learns in any phase of `plan`.

    They are built once: unfreezing only flips ``requires_grad`` and rates (law 9). Biases and norms have no decay.
    """
    ever = {name: p for phase in plan.phases for name, p in freeze.learning(model.backbone, phase).items()}
    rows = [(HEADS, name, p) for name, p in model.heads.named_parameters()]
    rows += [(model.backbone.stage_of(name), name, p) for name, p in ever.items()]
    by_key: dict[tuple[int, bool], list[tuple[str, nn.Parameter]]] = {}
    for stage, name, p in rows:
        by_key.setdefault((stage, p.ndim > 1), []).append((name, p))
    return [
        {
            "name": ("heads" if stage == HEADS else model.backbone.stages[stage].name)
            + ("" if decays else ", no decay"),
            "stage": stage,
            "names": [name for name, _ in named],
            "params": [p for _, p in named],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (stage, decays), named in sorted(by_key.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def build(model: TransferModel, plan: FreezePlan, config: LearnConfig) -> Optimizer:
    """Return the optimizer that `config` names, over :func:`groups`."""
    params = groups(model, plan, config.weight_decay)
    if config.optimizer in ("sgd", "nesterov"):
        nesterov = config.optimizer == "nesterov" and config.momentum > 0
        return torch.optim.SGD(params, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(params, lr=config.lr)


def set_rates(optimizer: Optimizer, phase: Phase, lr: float) -> None:
    """Give each group its rate in `phase`: `lr` times its stage's, or the heads'."""
    for group in optimizer.param_groups:
        stage = group["stage"]
        group["lr"] = lr * (phase.heads_rate if stage == HEADS else phase.stages[stage].rate)


def course(schedule: str, progress: float, warmup: float) -> float:
    """Return the rate's factor in [0, 1] at `progress` in [0, 1] through a phase.

    Linear from 0 to 1 over the first `warmup`, then constant, cosine to 0 (Loshchilov and Hutter 2017), or a tenth
    after each third.

    Examples
    --------
    >>> [round(course("cosine", p, 0.0), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    >>> [round(course("step", p, 0.0), 3) for p in (0.0, 0.5, 0.9)]
    [1.0, 0.1, 0.01]
    """
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / max(1 - warmup, 1e-12)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 0.1 ** min(int(3 * rest), 2) if schedule == "step" else 1.0
