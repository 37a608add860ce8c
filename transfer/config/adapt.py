"""The typed config of `transfer adapt`. Imports no torch."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from transfer.config.checked import Config
from transfer.config.lists import CommaFloats, CommaNames
from transfer.config.ranges import (
    ABOVE_ZERO,
    BELOW_ONE,
    AtLeastOne,
    Fraction,
    NotEmpty,
    NotNegative,
    Positive,
    Within,
)
from transfer.config.shared import (
    DEFAULT_BACKBONE,
    Advanced,
    BackboneConfig,
    CacheConfig,
    ImagesConfig,
    LayerwiseRatesConfig,
    OptimConfig,
    RunConfig,
)
from transfer.errors import TransferError


@dataclass(frozen=True)
class ShiftConfig(ImagesConfig):
    """The labelled source domains and the unlabelled target domain."""

    source: CommaNames = ()
    """Labelled source domains, such as amazon or amazon,dslr (default: with --target-images, all domains of --data)."""
    target: str = ""
    """Unlabelled target domain, such as webcam."""
    target_images: Path | None = None
    """Folder of images without class folders that is the target domain, with unknown labels; --target then names it
    (default: by its folder)."""
    protocol: Literal["transductive", "inductive", "office"] = "transductive"
    """transductive: adapt to all target images and evaluate on them; inductive: evaluate on a held-out part; office:
    the Office-31 protocol, with 8 source labels per class (20 for amazon) and 3 target labels."""
    target_labels: NotNegative[int] = 0
    """Target labels per class that may be used (semi-supervised adaptation)."""
    val: Fraction[float] = 0.1
    """Fraction of the source images that is used for validation."""
    test: Advanced[Annotated[float, Within(ABOVE_ZERO, BELOW_ONE)]] = 0.5
    """Fraction of the target images that is held out for testing; only with --protocol inductive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = "--protocol office" if self.protocol == "office" else "--target-labels"
        if self.target_images and (self.target_labels or self.protocol == "office"):
            raise TransferError(f"{labels} needs labels of the target, and --target-images have none: leave one out")


def format_shift(shift: Mapping[str, Any]) -> tuple[str, str]:
    """Return the source domains and the target domain of the setting ``shift`` in a config.json.

    Examples
    --------
    >>> format_shift({"source": ["amazon", "dslr"], "target": "webcam"})
    ('amazon, dslr', 'webcam')
    """
    return ", ".join(shift["source"]) or "all domains", shift["target"]


@dataclass(frozen=True)
class MethodConfig(Config):
    """The adaptation method, and how it is selected without target labels."""

    method: NotEmpty[CommaNames] = ("auto",)
    """Adaptation method; of several, such as mcc,shot, --rule selects one. auto selects by diagnostics of the shift."""
    rule: str = "auto"
    """Criterion that selects epoch, weight and method without target labels; auto uses im for epoch and weight, and
    circular between methods."""
    weight: Advanced[NotNegative[CommaFloats]] = ()
    """Factors on the weight of the method's loss; of several, such as 0.5,1, --rule selects one (default: 1)."""
    policy: str = "linear_probe"
    """Which backbone stages are trained; a policy of one phase, such as linear_probe (none), partial:2 or full."""
    bottleneck: Advanced[AtLeastOne[int]] = 256
    """Width of the layer between features and classifier."""


@dataclass(frozen=True)
class StepsConfig(OptimConfig, LayerwiseRatesConfig):
    """How the method's loss is minimised, by SGD with Nesterov momentum."""

    _: KW_ONLY
    epochs: AtLeastOne[int] = 10
    """Number of epochs; --rule scores the model after each."""
    steps: AtLeastOne[int] = 60
    """Optimizer steps per epoch."""
    batch_size: Annotated[int, Within(2)] = 64
    """Source images per step, and as many target images (half of each if backbone stages are trained)."""
    lr: Positive[float] = 0.05
    """Learning rate of the bottleneck and the classifier."""
    weight_decay: NotNegative[float] = 1e-3
    """L2 weight decay of all trained parameters."""
    clip: Advanced[NotNegative[float]] = 5.0
    augment: Literal["none", "flip", "crop", "colour"] = "crop"
    """Random augmentation of images if backbone stages are trained; frozen features are of the plain image."""


@dataclass(frozen=True)
class AdaptConfig(Config):
    """Adapt from labelled source domains to an unlabelled target domain."""

    shift: ShiftConfig = field(default_factory=ShiftConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    steps: StepsConfig = field(default_factory=StepsConfig)
    run: RunConfig = field(default_factory=RunConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    map: bool = False
    """Draw a t-SNE map of both domains' features before and after adaptation: map.png in the run folder."""
    backbones: CommaNames = ()
    """Several networks side by side, such as mobilenetv2_100,tf_efficientnet_lite0: the same as --backbone with a +
    between their names. Each image passes all of them, and their features are concatenated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbones and self.backbone.backbone not in (DEFAULT_BACKBONE, "+".join(self.backbones)):
            raise TransferError(
                f"--backbones names the networks already: leave out --backbone {self.backbone.backbone}"
            )
        if self.map and not self.run.out:
            raise TransferError("--map is written into the run folder: add --out FOLDER")
