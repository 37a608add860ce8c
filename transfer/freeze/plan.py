"""FreezePolicy (what to train) -> FreezePlan (per stage: frozen or trained, rate, normalisation statistics).

A plan is a sequence of phases: most policies have one, ``lp_ft`` two (probe, then fine-tune), ``gradual`` one per
stage. Nothing outside this file asks which policy is running; it reads the plan.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from transfer.errors import TransferError
from transfer.freeze.norms import norm_tensors
from transfer.freeze.policy import FreezePolicy

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone

Statistics = Literal["frozen", "learning"]
# Of features, tried in this order for as long as each is better than the last (``head2toe``).
PERCENTS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
# Times the least validation loss: what a stage's probe may have to be one of those averaged (``stage_probes``).
NEAR_BEST = 1.3


@dataclass(frozen=True)
class StagePlan:
    """What one stage does in one phase.

    Parameters
    ----------
    train : {"none", "norm", "all"}
        Which of its parameters learn; "norm" is those of its normalisation layers.
    rate : float
        Learning rate as a fraction of ``--lr``; 0 where nothing learns.
    statistics : {"frozen", "learning"}
        Of its normalisation layers' running statistics.
    parameters, trained : int
        How many it has, and how many of these learn.
    """

    name: str
    train: Literal["none", "norm", "all"]
    rate: float
    statistics: Statistics
    parameters: int
    trained: int

    @property
    def frozen(self) -> bool:
        """Whether nothing of the stage moves."""
        return self.train == "none" and self.statistics == "frozen"


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same things learn.

    Parameters
    ----------
    share : float
        Of all epochs, in (0, 1].
    heads_rate : float
        The heads' learning rate as a fraction of ``--lr``.
    percents : tuple of float
        Each head learns on so many of the features alone; of several what validation images choose. None: on all.
    by_stage : bool
        Each head is the mean of probes on the features of several stages.
    """

    name: str
    share: float
    heads_rate: float
    stages: tuple[StagePlan, ...]
    percents: tuple[float, ...] = ()
    by_stage: bool = False

    @property
    def cut(self) -> int:
        """How many stages from below are frozen: the trunk."""
        return next((i for i, stage in enumerate(self.stages) if not stage.frozen), len(self.stages))


@dataclass(frozen=True)
class FreezePlan:
    """What happens to each stage of one backbone under one policy.

    Parameters
    ----------
    dropped : tuple of str
        Names of the stages that the backbone no longer has.
    """

    policy: FreezePolicy
    phases: tuple[Phase, ...]
    dropped: tuple[str, ...] = ()

    @property
    def pretrained(self) -> bool:
        """Whether the run starts from pretrained weights."""
        return self.policy.kind != "scratch"

    @property
    def trained_parameters(self) -> int:
        """Backbone parameters that learn in some phase."""
        return sum(max(p.stages[i].trained for p in self.phases) for i in range(len(self.phases[0].stages)))

    @property
    def frozen_parameters(self) -> int:
        """Backbone parameters that never learn."""
        return sum(stage.parameters for stage in self.phases[0].stages) - self.trained_parameters

    def __str__(self) -> str:
        names = [stage.name for stage in self.phases[0].stages]
        wide = max(map(len, [*names, *self.dropped, "stage"]))
        head = [f"{'stage':<{wide}}", f"{'parameters':>12}", *(f"{p.name:>16}" for p in self.phases)]
        lines = [" ".join(head)]
        for i, name in enumerate(names):
            cells = [f"{name:<{wide}}", f"{self.phases[0].stages[i].parameters:>12,}"]
            for stage in (p.stages[i] for p in self.phases):
                what = {"none": "", "norm": "norm ", "all": ""}[stage.train]
                bn = " bn*" if stage.statistics == "learning" else ""
                cells.append(f"{'frozen' if stage.frozen else f'{what}{stage.rate:.3g} lr{bn}':>16}")
            lines.append(" ".join(cells))
        lines += [f"{name:<{wide}} {'dropped':>12}" for name in self.dropped]
        lines.append(
            " ".join([f"{'heads':<{wide}}", " " * 12, *(f"{f'{p.heads_rate:.3g} lr':>16}" for p in self.phases)])
        )
        if any(stage.statistics == "learning" for phase in self.phases for stage in phase.stages):
            lines.append("bn*: statistics of its BatchNorm layers learn, too")
        if percents := self.phases[0].percents:
            shares = "".join(f", {percent:g}" for percent in percents)[2:]
            chosen = " (validation images choose)" if len(percents) > 1 else ""
            lines.append(f"heads: on {shares} % of the features of all stages{chosen}")
        if self.phases[0].by_stage:
            lines.append("heads: the mean of probes on the features of several stages (validation images choose)")
        return "\n".join(lines)


def plan(
    policy: FreezePolicy | str,
    backbone: "Backbone",
    *,
    backbone_lr: float = 0.1,
    layer_decay: float = 0.8,
    statistics: Statistics | Literal["auto"] = "auto",
) -> FreezePlan:
    """Return what each stage of `backbone` does under `policy`, which it is :func:`~transfer.freeze.reshaped` for.

    A stage's rate is ``backbone_lr * layer_decay ** (stages above it)``; from scratch all rates are 1.

    Parameters
    ----------
    statistics : {"auto", "learning", "frozen"}
        Of the normalisation layers of trained stages; ``auto``: frozen where they come with pretrained weights. What a
        few small batches say is worse than what millions of images did.

    Raises
    ------
    TransferError
        More stages asked for than there are or remain, or no normalisation parameters under ``norm_only``.
    """
    if isinstance(policy, str):
        policy = FreezePolicy.parse(policy)
    n = len(backbone.stages)
    if policy.kind == "auto":
        raise TransferError("policy auto is what `transfer advise` says: `transfer train` and `compare` can follow it")
    if policy.dropped > len(backbone.dropped):
        raise ValueError(f"policy {policy}: {backbone.name} still has its last stages; see freeze.reshaped")
    if policy.stages is not None and policy.stages > n:
        there = f"{n} stages{' left' if policy.dropped else ''} ({', '.join(s.name for s in backbone.stages)})"
        raise TransferError(f"policy {policy}: {backbone.name} has {there}")
    if statistics == "auto":
        statistics = "learning" if backbone.weights == "random" else "frozen"
    of_norms: Statistics = statistics
    parameters, norms = _count(backbone)
    top = policy.stages or n

    def phase(
        name: str,
        trained: range,
        share: float = 1.0,
        heads: float = 1.0,
        what: Literal["norm", "all"] = "all",
    ) -> Phase:
        rows = []
        for i, stage in enumerate(backbone.stages):
            learns = i in trained and (what == "all" or norms[i] > 0)
            rate = 1.0 if policy.kind == "scratch" else backbone_lr * layer_decay ** (n - 1 - i)
            rows.append(
                StagePlan(
                    name=stage.name,
                    train=what if learns else "none",
                    rate=rate if learns else 0.0,
                    statistics=of_norms if learns else "frozen",
                    parameters=parameters[i],
                    trained=(parameters[i] if what == "all" else norms[i]) if learns else 0,
                )
            )
        return Phase(name, share, heads, tuple(rows))

    if policy.kind == "linear_probe":
        phases = [phase("probe", range(0))]
    elif policy.kind == "head2toe":
        percents = PERCENTS if policy.percent is None else (policy.percent,)
        phases = [replace(phase("probe", range(0)), percents=percents)]
    elif policy.kind == "stage_probes":
        phases = [replace(phase("probes", range(0)), by_stage=True)]
    elif policy.kind == "lp_ft":
        # Kumar et al. 2022: the fine-tune starts from the probe's heads, which must not outrun the features.
        phases = [
            phase("probe", range(0), 0.5),
            phase("fine-tune", range(n - top, n), 0.5, max(backbone_lr, 1e-12)),
        ]
    elif policy.kind == "gradual":
        # Howard and Ruder 2018: from the top, one more stage at a time. Bottom up is the contrary, to compare with.
        side = "bottom" if policy.part else "top"
        opened = [range(k) if policy.part else range(n - k, n) for k in range(top + 1)]
        phases = [phase(f"{side} {k}" if k else "heads", some, 1 / (top + 1)) for k, some in enumerate(opened)]
    elif policy.kind == "norm_only":
        if not sum(norms):
            raise TransferError(
                f"policy norm_only: {backbone.name} has no trainable normalisation parameters; try partial or full"
            )
        phases = [phase("norms", range(n), what="norm")]
    elif policy.kind == "surgical":
        # Lee et al. 2023: one contiguous block of the network; here a third of its stages.
        third = ("first", "middle", "last").index(policy.part)
        phases = [phase(policy.part, range(third * n // 3, max((third + 1) * n // 3, third * n // 3 + 1)))]
    else:
        phases = [phase(policy.kind, range(n - top, n) if policy.kind == "partial" else range(n))]
    return FreezePlan(policy, tuple(phases), backbone.dropped)


def _count(backbone: "Backbone") -> tuple[list[int], list[int]]:
    """Return per stage: all parameters, and those of normalisation layers."""
    norm = norm_tensors(backbone)
    parameters, norms = [0] * len(backbone.stages), [0] * len(backbone.stages)
    for name, parameter in backbone.network.named_parameters():
        stage = backbone.stage_of(name)
        parameters[stage] += parameter.numel()
        norms[stage] += parameter.numel() if name in norm else 0
    return parameters, norms
