"""What the rule needs to know of a run and of its network, and the policies that it rates."""

from dataclasses import dataclass
from math import hypot

from transfer import freeze
from transfer.backbones.backbone import Backbone
from transfer.backbones.stages import count_weight_layers
from transfer.heads.metrics import Z_95

# Policies that advice can recommend; besides these, linear probes on earlier stages (truncate:K) and fine-tuning of the
# last stages (lp_ft:K).
LINEAR_PROBE, HEAD2TOE, STAGE_PROBES, FINE_TUNING = "linear_probe", "head2toe", "stage_probes", "lp_ft"
MIN_FINE_TUNING_GAIN = 0.0075  # 0.75 percentage points of expected accuracy: less is not worth its time
MIN_LEAD_SDS = 1.0  # standard deviations by which fine-tuning must be expected to lead: see README.md


@dataclass(frozen=True)
class RunRequirements:
    """What the rule needs to know of a run: its images, and what its options allow."""

    frozen_passes: int  # images, counting each cached view, that pass the frozen network once
    images: int = 0
    test_images: int = 0
    solves_heads: bool = True  # whether heads can be solved, as those on the features of all stages must be
    fine_tuning_options: tuple[str, ...] = ()  # of no effect on a frozen backbone: if any, only fine-tuning is advised
    balanced: bool = False  # whether an option compensates class imbalance already
    networks: int = 1  # trained ones: one for each head where these are separate
    uncached_epochs: int = 0  # of trained heads that draw new augmented views and run the frozen network on them


@dataclass(frozen=True)
class NetworkLayout:
    """What the rule needs to know of a network."""

    parameters: tuple[int, ...]  # of each stage, lowest first
    layers: tuple[int, ...]  # weight layers of each stage, lowest first
    normalised: bool = True  # whether it has normalisation layers: it then gains more in the same number of steps

    @classmethod
    def from_backbone(cls, backbone: Backbone) -> "NetworkLayout":
        """Return the layout of `backbone`.

        Examples
        --------
        >>> from transfer.backbones import load
        >>> found = NetworkLayout.from_backbone(load("glyphnet"))
        >>> len(found.parameters) == len(found.layers), found.normalised
        (True, True)
        """
        submodule = backbone.network.get_submodule
        return cls(
            tuple(stage.parameters for stage in freeze.plan("full", backbone).phases[0].stages),
            tuple(sum(count_weight_layers(submodule(path)) for path in stage.modules) for stage in backbone.stages),
            any(freeze.is_norm(module) for module in backbone.network.modules()),
        )


@dataclass(frozen=True)
class RatedPolicy:
    """A policy with its expected accuracy and its costs."""

    policy: str
    accuracy: float  # expected object accuracy on new images, as a fraction
    sd: float  # its standard deviation
    measured: bool  # whether it was cross-validated; otherwise it is expected from other data sets
    trained: int  # trained parameters of the backbone
    head: int  # parameters of a linear object head on the policy's features
    epochs: int  # 0 where heads are solved
    seconds: float  # expected training time on this machine, with one seed
    gain_sd: float = 0.0  # standard deviation of its gain over the linear probe

    @property
    def interval(self) -> tuple[float, float]:
        """The central 95 %."""
        return max(self.accuracy - Z_95 * self.sd, 0.0), min(self.accuracy + Z_95 * self.sd, 1.0)


def compute_required_lead(fine_tuned: RatedPolicy, frozen: RatedPolicy) -> float:
    """Return the expected lead over the best policy `frozen` from which on fine-tuning is advised.

    It must be worth the time, and exceed its own uncertainty. What both expectations rest on, the probe's accuracy, has
    no part in that.

    Examples
    --------
    >>> def rate(policy, gain_sd):
    ...     return RatedPolicy(policy, 0.9, 0.05, False, 0, 10, 0, 1.0, gain_sd)
    >>> round(compute_required_lead(rate("lp_ft", 0.012), rate("stage_probes", 0.005)), 6)
    0.013
    >>> compute_required_lead(rate("lp_ft", 0.003), rate("stage_probes", 0.004))
    0.0075
    """
    return max(MIN_FINE_TUNING_GAIN, MIN_LEAD_SDS * hypot(fine_tuned.gain_sd, frozen.gain_sd))


def format_duration(seconds: float) -> str:
    """Return a duration as text.

    Examples
    --------
    >>> format_duration(4.2), format_duration(300), format_duration(9000)
    ('4 s', '5 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
