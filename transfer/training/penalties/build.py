"""Which penalties a config asks for, and whether these, and all else that holds learning back, can be had."""

import logging
from dataclasses import fields

from transfer.config.train import LearnConfig
from transfer.errors import TransferError
from transfer.feature_cache import Feed
from transfer.freeze import FreezePlan, Phase
from transfer.heads.dropout import DropConnect
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.training.penalties import co_tuning, delta
from transfer.training.penalties.bss import BSS
from transfer.training.penalties.elastic_net import ElasticNet
from transfer.training.penalties.l2_sp import L2SP
from transfer.training.penalties.penalty import Penalty
from transfer.training.penalties.pretrained import PretrainedCopy
from transfer.training.stochastic_depth import skippable

TAIL = {"l2_sp", "delta", "bss", "co_tuning", "stochastic_depth"}  # which say something of a backbone that learns
START = {"l2_sp", "delta", "co_tuning"}  # and hold it to what it was

log = logging.getLogger(__name__)


def check_penalties(model: TransferModel, plan: FreezePlan, config: LearnConfig, solved: list[bool]) -> None:
    """Refuse what cannot be under `plan`, and say what a solved phase does without.

    Parameters
    ----------
    solved : list of bool
        Of each phase, whether it is solved.

    Raises
    ------
    TransferError
        Features are to be selected in a phase that is not solved; the backbone stays frozen, starts from random
        weights, has lost its last stages or has no block to skip, and an option is about that; or
        all phases are solved, which none of the options changes.
    """
    if plan.policy.all_stages and not all(solved):
        raise TransferError(
            f"policy {plan.policy} is solved, never trained: it takes --probe solved, linear heads (no --hidden, no "
            "--dropout-kind vanilla, no --drop-connect), and --augment only with --views"
        )
    names = _penalised(config)
    if some := [name for name in names if name in TAIL and not plan.trained_parameters]:
        raise TransferError(
            f"{_flags(some)}: all of the backbone stays frozen under {plan.policy}; take one that trains some of it, "
            "such as --policy partial:1"
        )
    if some := [name for name in names if name in START and not plan.pretrained]:
        raise TransferError(f"{_flags(some)}: there are no pretrained weights to stay near under {plan.policy}")
    if "co_tuning" in names and plan.dropped:
        raise TransferError(f"--co-tuning: the original classifier stands on the stages that {plan.policy} drops")
    if "stochastic_depth" in names and not any(skippable(model.backbone, phase) for phase in plan.phases):
        raise TransferError(
            f"--stochastic-depth: {model.backbone.name} has no residual block that can be skipped in what "
            f"{plan.policy} trains; train more stages, or take another backbone"
        )
    names += _trained(model.heads, config)
    if names and all(solved):
        raise TransferError(
            f"{_flags(names)}: no effect on a solved probe, which has one strength of regularisation, chosen on "
            "validation images; add --probe trained"
        )
    for phase, is_solved in zip(plan.phases, solved, strict=True):
        if names and is_solved:
            log.info("phase %s is solved, without %s", phase.name, _flags(names))


def options_without_effect(heads: Heads, config: LearnConfig, solved: bool) -> list[str]:
    """Return the options that have no effect where the backbone is frozen and the heads are `solved`."""
    names = _penalised(config)
    return [*names, *_trained(heads, config)] if solved else [name for name in names if name in TAIL]


def _penalised(config: LearnConfig) -> list[str]:
    return [f.name for f in fields(config.regularise) if getattr(config.regularise, f.name)]


def _trained(heads: Heads, config: LearnConfig) -> list[str]:
    """Return what else only heads that are trained know."""
    names = [f"loss {config.loss}"] if config.loss != "cross_entropy" else []
    return names + (["drop_connect"] if any(isinstance(m, DropConnect) for m in heads.modules()) else [])


def needs_pretrained_copy(config: LearnConfig) -> bool:
    """Return whether a penalty wants the network as it was."""
    return any(getattr(config.regularise, name) for name in START)


def build_penalties(
    model: TransferModel, phase: Phase, config: LearnConfig, feed: Feed, start: PretrainedCopy | None
) -> tuple[Penalty, ...]:
    """Return the penalties of `phase`, for which `model` is frozen and cut.

    Raises
    ------
    TransferError
        No pixels for CutMix; no original classifier for Co-Tuning.
    """
    c = config.regularise
    if c.cutmix and model.cut:
        below = model.backbone.stages[model.cut].name if model.cut < len(model.backbone.stages) else "the heads"
        raise TransferError(
            f"--cutmix cuts boxes out of images, but phase {phase.name} sees what the frozen layers below {below} put "
            "out; choose --policy full, or --mixup"
        )
    found: list[Penalty] = []
    if c.l1 or c.l2:
        found.append(ElasticNet(c.l1, c.l2))
    if not any(stage.trained for stage in phase.stages):
        return tuple(found)
    if c.bss:
        found.append(BSS(c.bss))
    if start is not None:
        start.attach(model, feed)
        if c.l2_sp:
            found.append(L2SP(start.model.backbone, c.l2_sp))
        if c.delta:
            found.append(delta.Delta(start, delta.attention(start, model.heads, phase), c.delta))
        if c.co_tuning and "object" in model.heads.specs:
            original = co_tuning.classifier(start)
            relation = co_tuning.relation(start, original, model.heads.specs["object"].outputs)
            found.append(co_tuning.CoTuning(original, relation, c.co_tuning))
    return tuple(found)


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
