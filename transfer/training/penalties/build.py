"""Check and build the penalties that a config requests."""

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

NEED_TRAINED_BACKBONE = {"l2_sp", "delta", "bss", "co_tuning", "stochastic_depth"}
NEED_PRETRAINED_COPY = {"l2_sp", "delta", "co_tuning"}

log = logging.getLogger(__name__)


def check_penalties(model: TransferModel, plan: FreezePlan, config: LearnConfig, solved: list[bool]) -> None:
    """Raise if an option contradicts `plan`; log which options a phase that is `solved` ignores.

    Raises
    ------
    TransferError
        The policy needs solved phases and one is not; an option needs a trained backbone, pretrained weights, all
        stages, or blocks to skip, and there are none; or all phases are solved, and an option has no effect on these.
    """
    if plan.policy.all_stages and not all(solved):
        raise TransferError(
            f"policy {plan.policy} is solved, never trained: it takes --probe solved, linear heads (no --hidden, no "
            "--dropout-kind vanilla, no --drop-connect) of kinds with a convex loss, and --augment only with --views"
        )
    names = _penalised(config)
    if refused := [name for name in names if name in NEED_TRAINED_BACKBONE and not plan.trained_parameters]:
        raise TransferError(
            f"{_flags(refused)}: the whole backbone stays frozen under {plan.policy}; choose a policy that trains a "
            "part of it, such as --policy partial:1"
        )
    if refused := [name for name in names if name in NEED_PRETRAINED_COPY and not plan.pretrained]:
        raise TransferError(f"{_flags(refused)}: there are no pretrained weights to stay near under {plan.policy}")
    if "co_tuning" in names and plan.dropped:
        raise TransferError(f"--co-tuning: the original classifier needs the stages that {plan.policy} drops")
    if "stochastic_depth" in names and not any(skippable(model.backbone, phase) for phase in plan.phases):
        raise TransferError(
            f"--stochastic-depth: {model.backbone.name} has no residual block that can be skipped in what "
            f"{plan.policy} trains; train more stages, or take another backbone"
        )
    names += _trained(model.heads, config)
    if names and all(solved):
        raise TransferError(
            f"{_flags(names)}: no effect on a solved probe, whose only regularisation is L2, chosen on "
            "validation images; add --probe trained"
        )
    names += ["balance sampling"] if config.balance == "sampling" and not all(solved) else []
    for phase, is_solved in zip(plan.phases, solved, strict=True):
        if names and is_solved:
            log.info("phase %s is solved, which ignores %s", phase.name, _flags(names))


def options_without_effect(heads: Heads, config: LearnConfig, solved: bool) -> list[str]:
    """Return the options that have no effect where the backbone is frozen and the heads are `solved`."""
    names = _penalised(config)
    return [*names, *_trained(heads, config)] if solved else [name for name in names if name in NEED_TRAINED_BACKBONE]


def _penalised(config: LearnConfig) -> list[str]:
    return [f.name for f in fields(config.regularise) if getattr(config.regularise, f.name)]


def _trained(heads: Heads, config: LearnConfig) -> list[str]:
    """Return the other options that only trained heads have."""
    names = [f"loss {config.loss}"] if config.loss != "cross_entropy" else []
    return names + (["drop_connect"] if any(isinstance(m, DropConnect) for m in heads.modules()) else [])


def needs_pretrained_copy(config: LearnConfig) -> bool:
    """Return whether a penalty needs a copy of the pretrained network."""
    return any(getattr(config.regularise, name) for name in NEED_PRETRAINED_COPY)


def build_penalties(
    model: TransferModel, phase: Phase, config: LearnConfig, feed: Feed, pretrained: PretrainedCopy | None
) -> tuple[Penalty, ...]:
    """Return the penalties of `phase`; `model` must be frozen and cut for it.

    Raises
    ------
    TransferError
        CutMix without images as the input, or Co-Tuning without an original classifier.
    """
    c = config.regularise
    if c.cutmix and model.cut:
        below = model.backbone.stages[model.cut].name if model.cut < len(model.backbone.stages) else "the heads"
        raise TransferError(
            f"--cutmix mixes images, but the input of phase {phase.name} is the output of the frozen layers below "
            f"{below}; choose --policy full, or --mixup"
        )
    penalties: list[Penalty] = []
    if c.l1 or c.l2:
        penalties.append(ElasticNet(c.l1, c.l2))
    if not any(stage.trained for stage in phase.stages):
        return tuple(penalties)
    if c.bss:
        penalties.append(BSS(c.bss))
    if pretrained is not None:
        pretrained.attach(model, feed)
        if c.l2_sp:
            penalties.append(L2SP(pretrained.model.backbone, c.l2_sp))
        if c.delta:
            penalties.append(delta.Delta(pretrained, delta.channel_attention(pretrained, model.heads, phase), c.delta))
        if c.co_tuning and "object" in model.heads.specs:
            original = co_tuning.find_original_classifier(pretrained)
            relation = co_tuning.class_relation(pretrained, original, model.heads.specs["object"].outputs)
            penalties.append(co_tuning.CoTuning(original, relation, c.co_tuning))
    return tuple(penalties)


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
