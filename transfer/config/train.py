"""The typed configs of `transfer train` and `transfer compare`: command line, Python API and config.json in one.

Imports no torch, so that ``transfer --help`` answers at once.
"""

from dataclasses import dataclass, field
from typing import Literal

from transfer.config.checked import Config
from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import AtLeastOne, Fraction, NotEmpty, NotNegative, Positive
from transfer.config.shared import (
    Advanced,
    BackboneConfig,
    CacheConfig,
    ImagesConfig,
    LayerwiseRatesConfig,
    OptimConfig,
    RunConfig,
    ViewConfig,
)
from transfer.errors import TransferError


@dataclass(frozen=True)
class DataConfig(ImagesConfig):
    """The images, and how they are split into train, validation and test."""

    targets: Advanced[CommaNames] = ()
    """Further CSV columns or JSON keys to predict: NAME or NAME:KIND, where KIND is a head kind."""
    test: Fraction[float] = 0.2
    """Fraction of all images that is held out for testing."""
    val: Fraction[float] = 0.2
    """Fraction of the remaining images that is used for validation."""
    split_seed: Advanced[NotNegative[int | None]] = None
    """Seed for the train/val/test split (default: --seed)."""
    shots: AtLeastOne[int | None] = None
    """Labelled training images per class and domain (default: all); validation images are taken from these."""
    unlabelled: str | None = None
    """Images without a label that count in training, by labels propagated from the labelled ones where this predicts
    held-out labels better: rest (rows without a label, and those that --shots leaves over) or a folder of images."""
    keep_near_duplicates_together: Advanced[bool] = False
    """Keep near-duplicate images (by perceptual hash) on one side of the split."""


@dataclass(frozen=True)
class HeadConfig(Config):
    """The classifiers on top of the features."""

    heads: Literal["dual", "joint", "separate"] = "dual"
    """dual: a head for each target, their losses added; joint: one softmax over pairs of object and domain; separate:
    a network for each target."""
    hidden: AtLeastOne[CommaInts] = ()
    """Sizes of the hidden layers of an MLP head, such as 256,128 (default: a linear head)."""
    activation: Advanced[Literal["relu", "gelu", "tanh", "elu"]] = "relu"
    """Activation between the hidden layers of a head."""
    dropout: Fraction[float | None] = None
    """Dropout rate on the input of each layer of a head (default: 0.5 if the whole backbone is frozen, else 0)."""
    dropout_kind: Advanced[Literal["inverted", "vanilla"]] = "inverted"
    """inverted: scale up in training; vanilla: scale down in evaluation (a linear head with it is trained, not
    solved)."""
    drop_connect: Advanced[Fraction[float]] = 0.0
    """Probability of dropping each weight of a head for a training row (DropConnect)."""
    head_init: Advanced[Literal["xavier", "he"]] = "xavier"
    """Initialisation of head weights; biases are zero."""
    loss_weights: Advanced[CommaNames] = ()
    """Weights of the heads' losses, such as object:1,domain:0.5 (default: 1 each; 0: the head does not affect
    training)."""


@dataclass(frozen=True)
class PolicyConfig(LayerwiseRatesConfig):
    """Which layers are trained, and how fast."""

    policy: str = "linear_probe"
    """Which stages are trained, such as linear_probe, partial:2, full or lp_ft; truncate:N+POLICY removes the last N
    stages first; auto applies what `transfer advise` recommends."""
    statistics: Advanced[Literal["auto", "learning", "frozen"]] = "auto"
    """Whether trained stages update their BatchNorm statistics (auto: only if they start from random weights)."""


@dataclass(frozen=True)
class RegulariseConfig(Config):
    """Regularisation beyond weight decay and augmentation; 0 disables each. Solved probes choose their own L2."""

    l1: Advanced[NotNegative[float]] = 0.0
    """L1 penalty on the weights that --weight-decay applies to; with --l2 the elastic net."""
    l2: Advanced[NotNegative[float]] = 0.0
    """L2 penalty (half the squared weights), as a term of the loss of any optimizer."""
    l2_sp: Advanced[NotNegative[float]] = 0.0
    """L2-SP: penalty on half the squared distance from the pretrained weights (try 0.1); these have no weight decay."""
    delta: Advanced[NotNegative[float]] = 0.0
    """DELTA: penalty on the distance of a trained stage's channels from the pretrained ones, weighted by importance
    (try 0.01); no weight decay there."""
    bss: Advanced[NotNegative[float]] = 0.0
    """Batch spectral shrinkage: penalty on the squared smallest singular value of a batch's features (try 0.001)."""
    co_tuning: Advanced[NotNegative[float]] = 0.0
    """Co-Tuning: weight of a second loss on the pretrained classifier, whose targets are its mean predictions for each
    object (try 2.3)."""
    mixup: Advanced[NotNegative[float]] = 0.0
    """Mixup of images, or of frozen features (manifold mixup), and labels; shares are sampled from Beta(A, A)."""
    cutmix: Advanced[NotNegative[float]] = 0.0
    """CutMix: paste a box of one image into another, its area from Beta(A, A). With --mixup, each batch uses one."""
    stochastic_depth: Advanced[Fraction[float]] = 0.0
    """Probability of skipping the last trained residual block for an image; lower blocks in proportion."""


@dataclass(frozen=True)
class LearnConfig(OptimConfig):
    """How the trained layers are optimised."""

    optimizer: str = "adamw"
    """sgd, nesterov, adagrad, rmsprop, adam, adamw, lbfgs, or any optimizer of timm, such as lion or lamb."""
    accumulate: Advanced[AtLeastOne[int]] = 1
    """Parts of each batch whose gradients are added up (trained BatchNorm sees one part). Not for lbfgs."""
    schedule: Advanced[Literal["cosine", "step", "constant"]] = "cosine"
    """Learning rate schedule within each phase; step divides by 10 after each third."""
    warmup: Advanced[Fraction[float]] = 0.05
    """Fraction of the steps of a phase (or cycle) over which the learning rate rises from zero."""
    cycles: Advanced[AtLeastOne[int]] = 1
    """Restarts of the schedule within a phase (SGDR); the weights at the end of each cycle are also saved as an
    ensemble."""
    average: Advanced[Literal["none", "ema", "swa", "wise_ft"]] = "none"
    """Weights that are evaluated and saved: the last ones, their moving average (ema), their mean over the last quarter
    of a phase (swa), or some between those before and after fine-tuning (wise_ft, with --policy lp_ft): validation
    images choose how far."""
    ema_decay: Advanced[Fraction[float]] = 0.995
    """EMA decay per step."""
    probe: Advanced[Literal["solved", "trained"]] = "solved"
    """Linear heads on frozen features: solved by L-BFGS, or trained by --optimizer."""
    loss: Advanced[Literal["cross_entropy", "hinge", "asymmetric"]] = "cross_entropy"
    """hinge: multi-class hinge loss; its probabilities only rank the classes. asymmetric: of several labels an image,
    easy negatives weigh less (heads of other kinds have cross-entropy)."""
    label_smoothing: Advanced[Fraction[float]] = 0.1
    """Label smoothing: share of the target that is spread evenly over all classes (not for hinge)."""
    regularise: RegulariseConfig = field(default_factory=RegulariseConfig)
    minutes: Advanced[Positive[float | None]] = None
    """Longest time in minutes for training, over all seeds, policies or trials: learning rates fall over the epochs
    that fit, one at least. Evaluation comes on top; a resumed run starts its clock again. Not used with several
    cycles (default: no limit)."""
    patience: Advanced[NotNegative[int]] = 15
    """Stop a phase after this many epochs without a better validation score (0, or with several cycles: never)."""
    refit: Advanced[bool | None] = None
    """After validation has chosen the settings, refit on train + val for as many epochs (default: for linear_probe
    only)."""
    interference: Advanced[bool] = False
    """Log the cosine between the heads' gradients after each epoch, in metrics.jsonl."""
    balance: Literal["none", "loss", "sampling"] = "none"
    """Correct class imbalance by a weighted loss or by balanced sampling."""
    precision: Advanced[Literal["auto", "float32", "bfloat16"]] = "auto"
    """Precision of the forward pass; auto is bfloat16 on GPUs that support it, else float32."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """Train heads, and the backbone stages that a freeze policy selects, on labelled images."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    run: RunConfig = field(default_factory=RunConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    view: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache.views and self.learn.augment == "none":
            raise TransferError(f"--views {self.cache.views} caches augmented views: add --augment, such as crop")


@dataclass(frozen=True)
class CompareConfig(Config):
    """Train under several policies on one split, and compare them in one table."""

    train: TrainConfig = field(default_factory=TrainConfig)
    policies: NotEmpty[CommaNames] = ("linear_probe", "partial", "full", "scratch")
    """Policies to compare; the others are tested against the first."""
