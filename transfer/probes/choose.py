"""Which phases are solved rather than trained, and by what."""

from collections.abc import Callable
from functools import partial
from typing import Any

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import EveryStage
from transfer.config.train import LearnConfig
from transfer.freeze import Phase
from transfer.heads.heads import Heads
from transfer.model import TransferModel
from transfer.probes import head2toe, linear, stage_probes


def is_solved(model: TransferModel, phase: Phase, config: LearnConfig, views: int) -> bool:
    """Return whether `phase` is solved rather than trained: linear heads on a set of features that never changes."""
    return phase.cut == len(phase.stages) and can_be_solved(model.heads, config, views)


def can_be_solved(heads: Heads, config: LearnConfig, views: int) -> bool:
    """Return whether `heads` are solved where the backbone stays frozen."""
    return (config.augment == "none" or views > 0) and config.probe == "solved" and linear.solvable(heads)


def solver(backbone: Backbone, phase: Phase) -> Callable[..., dict[str, Any]]:
    """Return what solves heads on the features of `backbone`: see :func:`transfer.probes.linear.solve`."""
    if not isinstance(backbone, EveryStage):
        return linear.solve
    if phase.by_stage:
        return partial(stage_probes.solve, blocks=backbone.blocks, stages=[stage.name for stage in phase.stages])
    return partial(head2toe.solve, blocks=backbone.blocks, percents=phase.percents)
