"""Which phases of a plan are solved rather than trained, and by which solver."""

from collections.abc import Callable
from functools import partial
from typing import Any

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import AllStagesBackbone
from transfer.config.train import LearnConfig
from transfer.freeze import Phase
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.probes.head2toe import solve_head2toe
from transfer.probes.linear import is_convex, solve_linear_probe
from transfer.probes.stage_probes import solve_stage_probes


def is_phase_solved(model: TransferModel, phase: Phase, config: LearnConfig, views: int) -> bool:
    """Return whether `phase` is solved rather than trained: linear heads on a fixed set of features."""
    return phase.cut == len(phase.stages) and can_solve_heads(model.heads, config, views)


def can_solve_heads(heads: Heads, config: LearnConfig, views: int) -> bool:
    """Return whether `heads` are solved while the backbone is frozen.

    `views` is the number of cached augmented views of an image; 0 where each epoch draws its own.
    """
    return (config.augment == "none" or views > 0) and config.probe == "solved" and is_convex(heads)


def choose_solver(backbone: Backbone, phase: Phase) -> Callable[..., dict[str, Any]]:
    """Return the function that solves heads on the features of `backbone` in `phase`.

    See :func:`transfer.probes.linear.solve_linear_probe` for its parameters.
    """
    if not isinstance(backbone, AllStagesBackbone):
        return solve_linear_probe
    if phase.by_stage:
        stages = [stage.name for stage in phase.stages]
        return partial(solve_stage_probes, blocks=backbone.blocks, stages=stages)
    return partial(solve_head2toe, blocks=backbone.blocks, percents=phase.percents)
