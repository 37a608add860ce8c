"""Optimizers over named parameter groups, and learning rate schedules."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfer import freeze
from transfer.config.train import LearnConfig
from transfer.errors import TransferError, did_you_mean
from transfer.freeze import FreezePlan, Phase
from transfer.model import TransferModel

HEADS_GROUP = -1
TORCH_OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "lbfgs")
"""Implemented by torch, as in their papers; any other name is looked up in timm."""
PLAIN_OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
FUSED_OPTIMIZERS = ("adam", "adamw")  # of these, those that torch has as one kernel on every device
LBFGS_HISTORY = 10  # steps and gradients that approximate the curvature; 3 to 20 are usual

log = logging.getLogger(__name__)


class LBFGS(torch.optim.LBFGS):
    """Limited-memory BFGS (Liu and Nocedal 1989): up to 20 iterations a step, with a line search each.

    Each call of the closure must return the same loss: all rows in one batch, no dropout. Learning rates do not apply.
    Weight decay adds half the squared weights to the loss.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        groups = list(groups)
        params = [p for group in groups for p in group["params"]]
        super().__init__(params, history_size=LBFGS_HISTORY, line_search_fn="strong_wolfe")
        self.decays = [(group["weight_decay"], p) for group in groups for p in group["params"]]

    def step(self, closure: Callable[[], tuple[Tensor, Any]]) -> Tensor:  # type: ignore[override]
        """Take a step; `closure` returns the loss at the present weights, and anything else."""

        def objective() -> Tensor:
            self.zero_grad(set_to_none=True)
            loss, _ = closure()
            loss.backward()
            total = loss.detach()
            with torch.no_grad():
                for decay, p in self.decays:
                    if p.grad is not None:
                        total = total + decay / 2 * p.square().sum()
                        p.grad = p.grad.add(p, alpha=decay).contiguous()  # torch flattens it without a copy
            return total

        return super().step(objective)


def check_optimizer(name: str) -> None:
    """Raise a TransferError unless `name`, ``lookahead_`` aside, is in ``TORCH_OPTIMIZERS`` or in timm."""
    if name in TORCH_OPTIMIZERS:
        return
    import timm.optim  # some of its parts import torch's compiler, which takes a second

    known = {*TORCH_OPTIMIZERS, *map(str, timm.optim.list_optimizers())}
    if name.removeprefix("lookahead_") not in known or name == "lookahead_lbfgs":
        raise TransferError(
            f"unknown optimizer {name!r}{did_you_mean(name, known)}; known: {', '.join(TORCH_OPTIMIZERS)}, "
            "and all of timm.optim"
        )


def takes_momentum(name: str) -> bool:
    """Return whether the optimizer `name` has momentum to set.

    Examples
    --------
    >>> [takes_momentum(name) for name in ("nesterov", "adamw", "lion", "sgdw")]
    [True, False, False, True]
    """
    if name in TORCH_OPTIMIZERS:
        return name in ("sgd", "momentum", "nesterov")
    import timm.optim

    return bool(timm.optim.get_optimizer_info(name.removeprefix("lookahead_")).has_momentum)


def group_parameters(
    model: TransferModel, plan: FreezePlan, weight_decay: float, *, heads_only: bool = False
) -> list[dict[str, Any]]:
    """Return a group per stage (and one for the heads) and decay, over all parameters trained in any phase.

    They are built once: unfreezing only changes ``requires_grad`` and rates. Biases and norms have no weight
    decay; with `heads_only`, the backbone has none either.
    """
    backbone = model.backbone
    trained: dict[str, nn.Parameter] = {}
    for phase in plan.phases:
        trained |= freeze.find_trained_parameters(backbone, phase)
    rows = [(HEADS_GROUP, name, p) for name, p in model.heads.named_parameters()]
    rows += [(backbone.stage_of(name), name, p) for name, p in trained.items()]
    by_key: dict[tuple[int, bool], list[tuple[str, nn.Parameter]]] = {}
    for stage, name, p in rows:
        by_key.setdefault((stage, p.ndim > 1 and not (heads_only and stage != HEADS_GROUP)), []).append((name, p))
    names = {HEADS_GROUP: "heads"} | dict(enumerate(stage.name for stage in backbone.stages))
    return [
        {
            "name": names[stage] + ("" if decays else ", no decay"),
            "stage": stage,
            "names": [name for name, _ in named],
            "params": [p for _, p in named],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (stage, decays), named in sorted(by_key.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]


def build_optimizer(model: TransferModel, plan: FreezePlan, config: LearnConfig) -> Optimizer:
    """Return the optimizer that `config` names, over :func:`group_parameters`.

    A penalty on the distance from the pretrained weights replaces their decay, which would pull them to zero (Li et
    al. 2018).
    """
    near = config.regularise.l2_sp > 0 or config.regularise.delta > 0
    return create_optimizer(group_parameters(model, plan, config.weight_decay, heads_only=near), config)


def create_optimizer(params: list[dict[str, Any]], config: LearnConfig) -> Optimizer:
    """Return the optimizer that `config` names, over the groups `params` as :func:`group_parameters` makes them.

    An unknown optimizer, or one that does not run on this machine, raises a TransferError.
    """
    name, lr, momentum = config.optimizer, config.lr, config.momentum
    check_optimizer(name)
    # One kernel for a whole step: on a CPU core four times as fast for AdamW, twice for SGD.
    fused = {p.device.type for group in params for p in group["params"]} <= {"cpu", "cuda"}
    if name in ("sgd", "momentum", "nesterov"):
        nesterov = name == "nesterov" and momentum > 0
        return torch.optim.SGD(params, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "lbfgs":
        if config.batch_size:
            advice = "its estimate of the curvature mixes their losses; use --batch-size 0 for all rows at once"
            log.warning("lbfgs on batches of %d: %s", config.batch_size, advice)
        return LBFGS(params)
    if name in PLAIN_OPTIMIZERS:
        options: dict[str, Any] = {"fused": fused} if name in FUSED_OPTIMIZERS else {}
        return PLAIN_OPTIMIZERS[name](params, lr=lr, **options)  # type: ignore[call-arg]
    import timm.optim

    try:
        return timm.optim.create_optimizer_v2(params, opt=name, lr=lr, momentum=momentum)
    except Exception as error:  # some need a GPU, a package, or momentum
        raise TransferError(f"--optimizer {name}: {error}") from error


def count_state_bytes(optimizer: Optimizer) -> int:
    """Return the size in bytes of the state of `optimizer`, beside parameters and gradients.

    Examples
    --------
    >>> weight = nn.Parameter(torch.ones(1000))
    >>> adam = torch.optim.Adam([weight])
    >>> weight.sum().backward()
    >>> adam.step()
    >>> count_state_bytes(adam)  # two moments, and the step
    8004
    """

    def size(value: Any) -> int:
        parts = list(value.values()) if isinstance(value, dict) else value
        return sum(map(size, parts)) if isinstance(parts, list) else getattr(value, "nbytes", 0)

    return size(optimizer.state_dict()["state"])


def set_rates(optimizer: Optimizer, phase: Phase, lr: float) -> None:
    """Set each group's rate: `lr` times the factor of its stage, or of the heads. L-BFGS has none."""
    for group in optimizer.param_groups if not isinstance(optimizer, LBFGS) else ():
        stage = group["stage"]
        group["lr"] = lr * (phase.heads_rate if stage == HEADS_GROUP else phase.stages[stage].rate)


def schedule_factor(schedule: str, progress: float, warmup: float) -> float:
    """Return the rate's factor in [0, 1] at `progress` in [0, 1] through a phase.

    Linear from 0 to 1 over the first `warmup`, then constant, cosine to 0 (Loshchilov and Hutter 2017), or a tenth
    after each third.

    Examples
    --------
    >>> [round(schedule_factor("cosine", p, 0.0), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    >>> [round(schedule_factor("step", p, 0.0), 3) for p in (0.0, 0.5, 0.9)]
    [1.0, 0.1, 0.01]
    """
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / max(1 - warmup, 1e-12)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 0.1 ** min(int(3 * rest), 2) if schedule == "step" else 1.0
