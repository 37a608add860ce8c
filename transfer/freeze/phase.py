"""Phases: stretches of training in which the same parameters are trained, and what policies build them with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transfer.freeze.norms import find_norm_tensors

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone

Statistics = Literal["frozen", "learning"]


@dataclass(frozen=True)
class StagePlan:
    """What one stage does in one phase."""

    name: str
    train: Literal["none", "norm", "all"]  # which parameters are trained; "norm": those of normalisation layers
    rate: float  # learning rate as a fraction of --lr; 0 where nothing is trained
    statistics: Statistics  # whether the running statistics of its BatchNorm layers are updated
    parameters: int  # number of all parameters
    trained: int  # number of trained parameters

    @property
    def frozen(self) -> bool:
        """Whether no parameter or buffer of the stage changes."""
        return self.train == "none" and self.statistics == "frozen"


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same parameters are trained; its fields are keys of result.json."""

    name: str
    share: float  # fraction of all epochs, in (0, 1]
    heads_rate: float  # the heads' learning rate as a fraction of --lr
    stages: tuple[StagePlan, ...]  # in execution order
    percents: tuple[float, ...] = ()  # of the features that a head may use, tried in this order; empty: all features
    by_stage: bool = False  # whether each head is the mean of linear probes on several stages

    @property
    def cut(self) -> int:
        """Number of frozen stages below the first trained one: the trunk."""
        return next((i for i, stage in enumerate(self.stages) if not stage.frozen), len(self.stages))


class PhaseBuilder:
    """Builds the phases of one policy on one backbone; what :meth:`FreezePolicy.phases` is given as `build`.

    Parameters
    ----------
    backbone : Backbone
    backbone_lr, layer_decay
        See :func:`transfer.freeze.plan.plan`.
    statistics : {"learning", "frozen"}
        Of the normalisation layers of trained stages.
    from_scratch : bool
        Whether the weights are random at the start; then all rates are 1.
    """

    def __init__(
        self, backbone: "Backbone", backbone_lr: float, layer_decay: float, statistics: Statistics, from_scratch: bool
    ) -> None:
        self.backbone_lr, self.layer_decay, self.statistics = backbone_lr, layer_decay, statistics
        self._stages = backbone.stages
        self._from_scratch = from_scratch
        self._parameters, self._norms = _count_parameters(backbone)

    def __call__(
        self,
        name: str,
        trained: Iterable[int] = (),
        *,
        share: float = 1.0,
        heads_rate: float = 1.0,
        norms_only: bool = False,
        percents: tuple[float, ...] = (),
        by_stage: bool = False,
    ) -> Phase:
        """Return a phase.

        Parameters
        ----------
        trained : iterable of int
            Indices of the stages to train, 0 for the stem.
        norms_only : bool
            Train only the normalisation layers of these stages.
        name, share, heads_rate, percents, by_stage
            See :class:`Phase`.
        """
        indices = set(trained)
        if invalid := indices.difference(range(len(self._stages))):
            raise ValueError(f"phase {name}: the backbone has {len(self._stages)} stages, and no stage {min(invalid)}")
        stages = tuple(self._plan_stage(i, i in indices, norms_only) for i in range(len(self._stages)))
        return Phase(name, share, heads_rate, stages, percents, by_stage)

    def _plan_stage(self, i: int, trained: bool, norms_only: bool) -> StagePlan:
        name, total = self._stages[i].name, self._parameters[i]
        if not trained or (norms_only and not self._norms[i]):
            return StagePlan(name, "none", 0.0, "frozen", total, 0)
        rate = 1.0 if self._from_scratch else self.backbone_lr * self.layer_decay ** (len(self._stages) - 1 - i)
        if norms_only:
            return StagePlan(name, "norm", rate, self.statistics, total, self._norms[i])
        return StagePlan(name, "all", rate, self.statistics, total, total)


def _count_parameters(backbone: "Backbone") -> tuple[list[int], list[int]]:
    """Return for each stage the number of all parameters, and of those of normalisation layers."""
    norm = find_norm_tensors(backbone)
    parameters, norms = [0] * len(backbone.stages), [0] * len(backbone.stages)
    for name, parameter in backbone.network.named_parameters():
        stage = backbone.stage_of(name)
        parameters[stage] += parameter.numel()
        norms[stage] += parameter.numel() if name in norm else 0
    return parameters, norms
