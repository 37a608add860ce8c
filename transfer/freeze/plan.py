"""FreezePolicy (what to train) -> FreezePlan (for each phase and stage: trained or frozen, rate, norm statistics).

A plan is a sequence of phases: most policies have one, ``lp_ft`` two (probe, then fine-tune), ``gradual`` one for each
stage. Training, caching and reports read the plan and never ask which policy made it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from transfer.errors import TransferError
from transfer.freeze.phase import Phase, PhaseBuilder, StagePlan, Statistics
from transfer.freeze.policy import FreezePolicy

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone


@dataclass(frozen=True)
class FreezePlan:
    """What happens to each stage of one backbone under one policy."""

    policy: FreezePolicy
    phases: tuple[Phase, ...]
    dropped: tuple[str, ...] = ()  # names of the stages that were removed from the backbone

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
        return self.format_table([False] * len(self.phases))

    def format_table(self, solved: Sequence[bool]) -> str:
        """Return the stages with their rates in each phase; the heads have none in phases that are `solved`."""
        names = [stage.name for stage in self.phases[0].stages]
        width = max(map(len, [*names, *self.dropped, "stage"]))
        header = [f"{'stage':<{width}}", f"{'parameters':>12}", *(f"{p.name:>16}" for p in self.phases)]
        lines = [" ".join(header)]
        for i, name in enumerate(names):
            cells = [f"{name:<{width}}", f"{self.phases[0].stages[i].parameters:>12,}"]
            cells += [f"{_describe(phase.stages[i]):>16}" for phase in self.phases]
            lines.append(" ".join(cells))
        lines += [f"{name:<{width}} {'dropped':>12}" for name in self.dropped]
        rates = [
            "solved" if is_solved else f"{p.heads_rate:.3g} lr"
            for p, is_solved in zip(self.phases, solved, strict=True)
        ]
        lines.append(" ".join([f"{'heads':<{width}}", " " * 12, *(f"{rate:>16}" for rate in rates)]))
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
    build = PhaseBuilder(backbone, backbone_lr, layer_decay, statistics, policy.from_scratch)
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
