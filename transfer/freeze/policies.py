"""The policies that come with this package, one class each."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from transfer.errors import TransferError
from transfer.freeze.norms import find_norm_tensors
from transfer.freeze.policy import FreezePolicy, parse_stage_count, register_policy

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone
    from transfer.freeze.phase import Phase, PhaseBuilder

HEAD2TOE_PERCENTS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0)
"""Percentages of features, tried in this order as long as the validation loss falls."""
MIN_HEADS_RATE = 1e-12  # of --lr, in the second phase of lp_ft


@register_policy
class LinearProbe(FreezePolicy):
    """Train the heads on features of the frozen backbone."""

    name = "linear_probe"
    summary = "the heads alone, on frozen features"
    trains_backbone = False

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase in which the backbone is frozen."""
        return (build("probe"),)


@dataclass(frozen=True)
class _StagesPolicy(FreezePolicy):
    """Base of policies that take a number of stages; without one, all stages."""

    stages: int | None = None

    @property
    def argument(self) -> str:
        """The number of stages, if there is one."""
        return str(self.stages or "")

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """Return the policy for a number of stages."""
        return cls() if argument is None else cls(parse_stage_count(argument, f"{cls.name}:2"))


@register_policy
@dataclass(frozen=True)
class Partial(_StagesPolicy):
    """Train the last stages."""

    stages: int = 2

    name = "partial"
    summary = "the last N stages (default 2)"
    usage = "partial[:N]"

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase that trains the last stages."""
        n = len(backbone.stages)
        return (build(self.name, range(n - self.stages, n)),)


@register_policy
class Full(FreezePolicy):
    """Train all stages."""

    name = "full"
    summary = "all stages"

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase that trains all stages."""
        return (build(self.name, range(len(backbone.stages))),)


@register_policy
@dataclass(frozen=True)
class LpFt(_StagesPolicy):
    """Train the heads first, then the last stages with them (LP-FT, Kumar et al. 2022)."""

    name = "lp_ft"
    summary = "first the heads alone, then the last N stages with them (default: all)"
    usage = "lp_ft[:N]"
    single_phase = False

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return a probe and a fine-tuning phase, in which the heads must not outrun the features."""
        n = len(backbone.stages)
        trained = range(n - (self.stages or n), n)
        return (
            build("probe", share=0.5),
            build("fine-tune", trained, share=0.5, heads_rate=max(build.backbone_lr, MIN_HEADS_RATE)),
        )


@register_policy
@dataclass(frozen=True)
class Gradual(_StagesPolicy):
    """Unfreeze one more stage in each phase, from the top (Howard and Ruder 2018) or from the bottom."""

    order: Literal["", "bottom_up"] = ""

    name = "gradual"
    summary = "one more stage in each phase, from the top (or bottom up), up to N (default: all)"
    usage = "gradual[:N|bottom_up]"
    single_phase = False

    @property
    def argument(self) -> str:
        """The order or the number of stages, if one was given."""
        return self.order or str(self.stages or "")

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """Return the policy for a number of stages or an order."""
        if argument == "bottom_up":
            return cls(order="bottom_up")
        return cls() if argument is None else cls(parse_stage_count(argument, "gradual:2", "gradual:bottom_up"))

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return a phase for the heads and one for each further stage."""
        n = len(backbone.stages)
        top = self.stages or n
        side = "bottom" if self.order else "top"
        trained = [range(k) if self.order else range(n - k, n) for k in range(top + 1)]
        return tuple(
            build(f"{side} {k}" if k else "heads", stages, share=1 / (top + 1)) for k, stages in enumerate(trained)
        )


@register_policy
class NormOnly(FreezePolicy):
    """Train the scale and shift of the normalisation layers of all stages (Frankle et al. 2021)."""

    name = "norm_only"
    summary = "scale and shift of all normalisation layers"

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase that trains normalisation parameters."""
        norm = find_norm_tensors(backbone)
        if not any(name in norm and p.numel() for name, p in backbone.network.named_parameters()):
            raise TransferError(
                f"policy norm_only: {backbone.name} has no trainable normalisation parameters; try partial or full"
            )
        return (build("norms", range(len(backbone.stages)), norms_only=True),)


@register_policy
@dataclass(frozen=True)
class Surgical(FreezePolicy):
    """Train one contiguous block of the network, here a third of its stages (Lee et al. 2023)."""

    THIRDS: ClassVar[tuple[str, ...]] = ("first", "middle", "last")

    third: str = "middle"

    name = "surgical"
    summary = "one third of the stages"
    usage = "surgical:first|middle|last"

    @property
    def argument(self) -> str:
        """The third."""
        return self.third

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """Return the policy for a third."""
        if argument not in cls.THIRDS:
            raise ValueError(f"write one of {', '.join(f'surgical:{third}' for third in cls.THIRDS)}")
        return cls(argument)

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase that trains at least one stage."""
        n, third = len(backbone.stages), self.THIRDS.index(self.third)
        start = third * n // 3
        return (build(self.third, range(start, max((third + 1) * n // 3, start + 1))),)


@register_policy
@dataclass(frozen=True)
class Head2Toe(FreezePolicy):
    """Train linear heads on selected features of all stages of the frozen backbone (Evci et al. 2022)."""

    percent: float | None = None

    name = "head2toe"
    summary = "a linear probe on selected features of all stages (default: validation images choose the percentage)"
    usage = "head2toe[:PERCENT]"
    trains_backbone = False
    all_stages = True

    @property
    def argument(self) -> str:
        """The percentage of features, if it was given."""
        return "" if self.percent is None else f"{self.percent:.15g}"

    @classmethod
    def from_argument(cls, argument: str | None) -> Self:
        """Return the policy for a percentage of features, above 0 and up to 100."""
        if argument is None:
            return cls()
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?", argument) or not 0 < float(argument) <= 100:
            raise ValueError(
                "write a percentage of features after the colon, above 0 and up to 100, such as head2toe:10"
            )
        return cls(float(argument))

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase in which the backbone is frozen."""
        return (build("probe", percents=HEAD2TOE_PERCENTS if self.percent is None else (self.percent,)),)


@register_policy
class StageProbes(FreezePolicy):
    """Train linear probes on several stages of the frozen backbone; each head is their mean."""

    name = "stage_probes"
    summary = "the mean of linear probes on several stages, which validation images choose"
    trains_backbone = False
    all_stages = True

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Return one phase in which the backbone is frozen."""
        return (build("probes", by_stage=True),)


@register_policy
class Scratch(Full):
    """Train all stages from random weights, at the heads' rate."""

    name = "scratch"
    summary = "all stages, from random weights"
    from_scratch = True


@register_policy
class Auto(FreezePolicy):
    """Train what ``transfer advise`` recommends."""

    name = "auto"
    summary = "what `transfer advise` recommends"
    advised = True

    def phases(self, backbone: "Backbone", build: "PhaseBuilder") -> tuple["Phase", ...]:
        """Raise: advice replaces this policy before there is a plan."""
        raise TransferError("policy auto needs advice: only `transfer train` and `transfer compare` accept it")
