"""FreezePolicy (what to train) -> FreezePlan (for each phase and stage: trained or frozen, rate, norm statistics).

A plan is a sequence of phases: most policies have one, ``lp_ft`` two (probe, then fine-tune), ``gradual`` one for each
stage. Training, caching and reports read the plan and never ask which policy made it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transfer.errors import TransferError
from transfer.freeze.norms import find_norm_tensors
from transfer.freeze.policy import FreezePolicy

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone

Statistics = Literal["frozen", "learning"]


@dataclass(frozen=True)
class StagePlan:
    """What one stage does in one phase.

    Parameters
    ----------
    train : {"none", "norm", "all"}
        Which of its parameters are trained; "norm": those of its normalisation layers.
    rate : float
        Learning rate as a fraction of ``--lr``; 0 where nothing is trained.
    statistics : {"frozen", "learning"}
        Whether the running statistics of its BatchNorm layers are updated.
    parameters, trained : int
        Number of all its parameters, and of those trained.
    """

    name: str
    train: Literal["none", "norm", "all"]
    rate: float
    statistics: Statistics
    parameters: int
    trained: int

    @property
    def frozen(self) -> bool:
        """Whether no parameter or buffer of the stage changes."""
        return self.train == "none" and self.statistics == "frozen"


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same parameters are trained; its fields are keys of result.json.

    Parameters
    ----------
    share : float
        Fraction of all epochs, in (0, 1].
    heads_rate : float
        The heads' learning rate as a fraction of ``--lr``.
    stages : tuple of StagePlan
        In execution order.
    percents : tuple of float
        Percentages of the features that a head may use, tried in this order; empty: all features.
    by_stage : bool
        Whether each head is the mean of linear probes on several stages.
    """

    name: str
    share: float
    heads_rate: float
    stages: tuple[StagePlan, ...]
    percents: tuple[float, ...] = ()
    by_stage: bool = False

    @property
    def cut(self) -> int:
        """Number of frozen stages below the first trained one: the trunk."""
        return next((i for i, stage in enumerate(self.stages) if not stage.frozen), len(self.stages))


@dataclass(frozen=True)
class FreezePlan:
    """What happens to each stage of one backbone under one policy.

    Parameters
    ----------
    policy : FreezePolicy
    phases : tuple of Phase
    dropped : tuple of str
        Names of the stages that were removed from the backbone.
    """

    policy: FreezePolicy
    phases: tuple[Phase, ...]
    dropped: tuple[str, ...] = ()

    @property
    def pretrained(self) -> bool:
        """Whether the run starts from pretrained weights."""
        return not self.policy.from_scratch

    @property
    def trained_parameters(self) -> int:
        """Number of backbone parameters that are trained in some phase."""
        return sum(max(p.stages[i].trained for p in self.phases) for i in range(len(self.phases[0].stages)))

    @property
    def frozen_parameters(self) -> int:
        """Number of backbone parameters that are never trained."""
        return sum(stage.parameters for stage in self.phases[0].stages) - self.trained_parameters

    def __str__(self) -> str:
        names = [stage.name for stage in self.phases[0].stages]
        width = max(map(len, [*names, *self.dropped, "stage"]))
        header = [f"{'stage':<{width}}", f"{'parameters':>12}", *(f"{p.name:>16}" for p in self.phases)]
        lines = [" ".join(header)]
        for i, name in enumerate(names):
            cells = [f"{name:<{width}}", f"{self.phases[0].stages[i].parameters:>12,}"]
            cells += [f"{_describe(phase.stages[i]):>16}" for phase in self.phases]
            lines.append(" ".join(cells))
        lines += [f"{name:<{width}} {'dropped':>12}" for name in self.dropped]
        rates = [f"{f'{phase.heads_rate:.3g} lr':>16}" for phase in self.phases]
        lines.append(" ".join([f"{'heads':<{width}}", " " * 12, *rates]))
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        """Return the lines below the table."""
        first, notes = self.phases[0], []
        if any(stage.statistics == "learning" for phase in self.phases for stage in phase.stages):
            notes.append("bn*: BatchNorm statistics are updated, too")
        if first.percents:
            percents = ", ".join(f"{percent:g}" for percent in first.percents)
            chosen = " (validation images choose)" if len(first.percents) > 1 else ""
            notes.append(f"heads: on {percents} % of the features of all stages{chosen}")
        if first.by_stage:
            notes.append("heads: the mean of probes on the features of several stages (validation images choose)")
        return notes


def _describe(stage: StagePlan) -> str:
    if stage.frozen:
        return "frozen"
    statistics = " bn*" if stage.statistics == "learning" else ""
    return f"{'norm ' if stage.train == 'norm' else ''}{stage.rate:.3g} lr{statistics}"


class PhaseBuilder:
    """Builds the phases of one policy on one backbone; what :meth:`FreezePolicy.phases` is given as `build`.

    Parameters
    ----------
    policy : FreezePolicy
    backbone : Backbone
    backbone_lr, layer_decay
        See :func:`plan`.
    statistics : {"learning", "frozen"}
        Of the normalisation layers of trained stages.
    """

    def __init__(
        self,
        policy: FreezePolicy,
        backbone: "Backbone",
        backbone_lr: float,
        layer_decay: float,
        statistics: Statistics,
    ) -> None:
        self.backbone_lr, self.layer_decay, self.statistics = backbone_lr, layer_decay, statistics
        self._stages = backbone.stages
        self._from_scratch = policy.from_scratch
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


def plan(
    policy: FreezePolicy | str,
    backbone: "Backbone",
    *,
    backbone_lr: float = 0.1,
    layer_decay: float = 0.8,
    statistics: Statistics | Literal["auto"] = "auto",
) -> FreezePlan:
    """Return what each stage of `backbone` does under `policy`.

    A stage's rate is ``backbone_lr * layer_decay ** (stages above it)``; from scratch all rates are 1.

    Parameters
    ----------
    backbone : Backbone
        As :func:`~transfer.freeze.reshape_backbone` returns it for the policy.
    statistics : {"auto", "learning", "frozen"}
        BatchNorm statistics of trained stages; ``auto``: updated only where the weights are random at the start.
        Statistics of a few small batches are worse than those of millions of pretraining images.

    Raises
    ------
    TransferError
        The policy needs more stages than remain, or is impossible on this backbone.
    """
    if isinstance(policy, str):
        policy = FreezePolicy.parse(policy)
    n = len(backbone.stages)
    if policy.dropped > len(backbone.dropped):
        raise ValueError(f"policy {policy}: {backbone.name} still has its last stages; see freeze.reshape_backbone")
    if policy.stages is not None and policy.stages > n:
        names = ", ".join(stage.name for stage in backbone.stages)
        raise TransferError(
            f"policy {policy}: {backbone.name} has {n} stages{' left' * bool(policy.dropped)} ({names})"
        )
    if statistics == "auto":
        statistics = "learning" if backbone.weights == "random" else "frozen"
    build = PhaseBuilder(policy, backbone, backbone_lr, layer_decay, statistics)
    phases = policy.phases(backbone, build)
    _check_phases(policy, phases)
    return FreezePlan(policy, phases, backbone.dropped)


def _check_phases(policy: FreezePolicy, phases: tuple[Phase, ...]) -> None:
    """Raise if a policy of a plugin returns phases that do not fit together."""
    if not isinstance(phases, tuple) or not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise TransferError(f"policy {policy}: phases() of {type(policy).__name__} must return a tuple of phases")
    if abs(sum(phase.share for phase in phases) - 1) > 1e-6:
        shares = ", ".join(f"{phase.share:g}" for phase in phases)
        raise TransferError(f"policy {policy}: the shares of its phases ({shares}) must sum to 1")
    if policy.single_phase and len(phases) > 1:
        raise TransferError(f"policy {policy} has {len(phases)} phases: set single_phase = False in its class")


def _count_parameters(backbone: "Backbone") -> tuple[list[int], list[int]]:
    """Return for each stage the number of all parameters, and of those of normalisation layers."""
    norm = find_norm_tensors(backbone)
    parameters, norms = [0] * len(backbone.stages), [0] * len(backbone.stages)
    for name, parameter in backbone.network.named_parameters():
        stage = backbone.stage_of(name)
        parameters[stage] += parameter.numel()
        norms[stage] += parameter.numel() if name in norm else 0
    return parameters, norms
