"""The typed config of `transfer adapt`; torch-free, as :mod:`transfer.config.train` is."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transfer.config.lists import CommaFloats, CommaNames
from transfer.config.ranges import ABOVE_ZERO, BELOW_ONE, within
from transfer.config.train import BackboneConfig, CacheConfig, Device, OnBadImage, RunConfig
from transfer.errors import TransferError


@dataclass(frozen=True)
class ShiftConfig:
    """From which labelled domains to which unlabelled one."""

    data: str = "digits"
    """A set's name (digits, office31), a folder, or a CSV manifest."""
    source: CommaNames = ()
    """The labelled domains, such as amazon or amazon,dslr."""
    target: str = ""
    """The domain without labels, such as webcam."""
    protocol: Literal["transductive", "inductive", "office"] = "transductive"
    """transductive: adapt to all target images and measure on them; inductive: measure on a part held out; office: 20
    (amazon) or 8 labels per class of the source, 3 of the target."""
    target_labels: int = 0
    """Labels per class of the target that may be used (semi-supervised)."""
    val: float = 0.1
    """Fraction of the source held out to validate on."""
    test: float = 0.5
    """Fraction of the target held out under --protocol inductive."""
    data_root: Path | None = None
    """Where named sets lie (default: TRANSFER_DATA, else the cache)."""
    on_bad_image: OnBadImage = "refuse"
    """What to do about an image that does not decode: refuse the set, or skip and count it."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "target_labels")
        within(self, 0, BELOW_ONE, "val")
        within(self, ABOVE_ZERO, BELOW_ONE, "test")


@dataclass(frozen=True)
class MethodConfig:
    """How to adapt, and how to choose without target labels."""

    method: CommaNames = ("auto",)
    """auto, source_only, target_only, standardise, coral, subspace, adabn, deep_coral, dan, jan, dann, adda, cdan,
    cdan_e, mcd, mdd, afn, bsp, mcc, im, mme, shot, fixmatch, centroids, propagation, transport, growing; of several
    the rule takes one."""
    rule: str = "auto"
    """What chooses epoch, weight and method without target labels: source_val, entropy, im, snd, dev, iwv, circular,
    mcc; auto takes im for epoch and weight, circular between methods."""
    weight: CommaFloats = ()
    """Factor on the method's own weight of its loss beside the source's; of several the rule takes one (default: 1)."""
    policy: str = "linear_probe"
    """Which stages learn: linear_probe (none), partial[:k], full, norm_only, surgical:first|middle|last; with the last
    k stages dropped: truncate:k[+POLICY]."""
    bottleneck: int = 256
    """Width of the layer between features and classifier."""

    def __post_init__(self) -> None:
        if not self.method:
            raise TransferError("--method is empty: name one, or several such as mcc,shot")
        within(self, 0, math.inf, "weight")
        within(self, 1, math.inf, "bottleneck")


@dataclass(frozen=True)
class StepsConfig:
    """How a method's loss is minimised."""

    epochs: int = 10
    """After each one the rule judges."""
    steps: int = 60
    """Of the optimizer, per epoch."""
    batch_size: int = 64
    """Images of the source in a step, and as many of the target (a trained tail takes half of each)."""
    lr: float = 0.05
    """Of SGD with Nesterov momentum, for bottleneck and classifier."""
    backbone_lr: float = 0.1
    """Rate of the top stage as a fraction of that."""
    layer_decay: float = 0.8
    """Each stage's rate as a fraction of the one above it."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-3
    """L2, on all that learns."""
    augment: Literal["none", "flip", "crop", "colour"] = "crop"
    """Of what a trained tail sees; frozen features are of the plain image."""
    clip: float = 5.0
    """Largest norm of the gradient (0: no limit)."""
    device: Device = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    workers: int | None = None
    """Threads that decode images (default: one per core). No effect on the result."""

    def __post_init__(self) -> None:
        within(self, ABOVE_ZERO, math.inf, "lr")
        within(self, 0, math.inf, "backbone_lr", "layer_decay", "weight_decay", "clip")
        within(self, 0, BELOW_ONE, "momentum")
        within(self, 1, math.inf, "epochs", "steps", "workers")
        within(self, 2, math.inf, "batch_size")


@dataclass(frozen=True)
class AdaptConfig:
    """Carry what labelled domains teach to a domain without labels."""

    shift: ShiftConfig = field(default_factory=ShiftConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    steps: StepsConfig = field(default_factory=StepsConfig)
    run: RunConfig = field(default_factory=RunConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    map: bool = False
    """Draw a t-SNE map of both domains' features before and after: map.png in the run folder."""

    def __post_init__(self) -> None:
        if self.map and not self.run.out:
            raise TransferError("--map is written into the run folder: say --out FOLDER")
