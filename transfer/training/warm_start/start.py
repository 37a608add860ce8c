"""A warm start: a model begins with the weights of a finished one; first its heads are fitted, then the last phase."""

from dataclasses import dataclass, replace

import numpy as np

from transfer.backbones.weights import set_tensors
from transfer.config.train import LearnConfig
from transfer.data.table import ImageTable
from transfer.feature_cache import TrunkCache
from transfer.freeze import FreezePlan, Phase
from transfer.heads.known_classes import copy_known_classes
from transfer.model import TransferModel
from transfer.probes.choose import is_phase_solved
from transfer.runs.checkpoint import Models
from transfer.training.warm_start.guard import Guard, make_guard


@dataclass(frozen=True)
class WarmStart:
    """What a run starts from.

    Parameters
    ----------
    models : dict of str to TransferModel
        Networks of the finished run, by part; they are not changed.
    validation : frozenset of str
        The sha256 of its validation images.
    max_loss : float
        How much accuracy an epoch may lose on these, as a share; the weights of others are not used.
    """

    models: Models
    validation: frozenset[str]
    max_loss: float

    def apply(
        self, name: str, model: TransferModel, plan: FreezePlan, config: LearnConfig, views: int
    ) -> FreezePlan | None:
        """Give the network `name` the old weights; return the plan of its training, or None if it is solved.

        Linear heads on frozen features are solved, with the same result from any start. Earlier phases of a plan
        prepare the last one. Here the old weights do; where a head lacks a class, it is fitted to all images first, on
        the old backbone, since a low learning rate learns it too slowly and a high one forgets others.
        """
        if all(is_phase_solved(model, phase, config, views) for phase in plan.phases) or name not in self.models:
            return None
        old = self.models[name]
        set_tensors(model.backbone.network, old.backbone.network.state_dict())
        complete = copy_known_classes(model.heads, old.heads)
        last = plan.phases[-1]
        if complete or last.cut == len(last.stages):
            return replace(plan, phases=(replace(last, share=1.0),))
        rate = max(stage.rate for stage in last.stages)  # the heads must not outrun the features
        return replace(plan, phases=(_freeze_stages(last), replace(last, share=1.0, heads_rate=rate)))

    def guard(  # the images are four parameters
        self,
        name: str,
        model: TransferModel,
        table: ImageTable,
        digests: np.ndarray,
        val: np.ndarray,
        cache: TrunkCache,
    ) -> Guard | None:
        """Return the guard of the network `name` for those validation rows `val` of `table` that the run had, too."""
        rows = val[np.isin(digests[val], list(self.validation)) & (table.object[val] >= 0)]
        return make_guard(self.models[name], model, table, digests, rows, cache, self.max_loss)


def _freeze_stages(phase: Phase) -> Phase:
    """Return a phase that trains or solves the heads alone."""
    stages = (replace(each, train="none", rate=0.0, statistics="frozen", trained=0) for each in phase.stages)
    return replace(phase, name="probe", share=1.0, heads_rate=1.0, stages=tuple(stages))
