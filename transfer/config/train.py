"""The typed configs: one definition for the command line, the Python API and the saved config.json.

This module imports neither torch nor anything that does, so that ``transfer --help`` answers at once.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import ABOVE_ZERO, BELOW_ONE, within
from transfer.errors import TransferError

OnBadImage = Literal["refuse", "skip"]
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are split."""

    data: str = "digits"
    """A set's name (digits, office31), a folder, a CSV manifest, or tar shards; also one below --data-root."""
    data_root: Path | None = None
    """Where named sets lie (default: TRANSFER_DATA, else the cache)."""
    targets: CommaNames = ()
    """Further CSV columns or JSON keys to learn: NAME or NAME:KIND, kind softmax, binary or regression."""
    test: float = 0.2
    """Held-out fraction of all images."""
    val: float = 0.2
    """Validation fraction of what is not test."""
    split_seed: int | None = None
    """Of the split alone (default: --seed), to train several runs of an ensemble on one split."""
    shots: int | None = None
    """Labels per class and domain (default: all); validation is taken out of these."""
    keep_near_duplicates_together: bool = False
    """Keep near-duplicate images (by perceptual hash) on one side of the split."""
    on_bad_image: OnBadImage = "refuse"
    """What to do about an image that does not decode: refuse the set, or skip and count it."""

    def __post_init__(self) -> None:
        within(self, 0, BELOW_ONE, "test", "val")
        within(self, 1, math.inf, "shots")
        within(self, 0, math.inf, "split_seed")


@dataclass(frozen=True)
class BackboneConfig:
    """Which pretrained network, and where its weights come from."""

    backbone: str = "glyphnet"
    """As the provider writes it: resnet50.a1_in1k, mobilenetv2_100, torchvision:squeezenet1_1, glyphnet."""
    weights: Path | None = None
    """A weights file (default: the store TRANSFER_WEIGHTS, then the bundle, then the hub)."""
    random_init: bool = False
    """Start from random weights on purpose."""
    image_size: int | None = None
    """Side in pixels of the images it sees (default: as it was pretrained); a larger one shows the whole image."""

    def __post_init__(self) -> None:
        within(self, 1, 4096, "image_size")


@dataclass(frozen=True)
class HeadConfig:
    """What sits on the features."""

    heads: Literal["dual", "joint", "separate"] = "dual"
    """dual: one head each, summed losses; joint: one softmax over the pairs; separate: a network each."""
    hidden: CommaInts = ()
    """Hidden sizes of an MLP head, such as 256,128 (default: a linear head)."""
    activation: Literal["relu", "gelu", "tanh", "elu"] = "relu"
    """Between the hidden layers."""
    dropout: float | None = None
    """On each layer's input in the head (default: 0.5 where the whole backbone stays frozen, else 0)."""
    dropout_kind: Literal["inverted", "vanilla"] = "inverted"
    """inverted scales up in training, vanilla down in use (a linear head with it is trained, never solved)."""
    drop_connect: float = 0.0
    """Chance that a weight of the head is left out of a training row's answer."""
    head_init: Literal["xavier", "he"] = "xavier"
    """How head weights are drawn; biases are zero."""
    loss_weights: CommaNames = ()
    """Weights of the heads' losses, such as object:1,domain:0.5 (default: 1 each; at 0 a head has no say at all)."""

    def __post_init__(self) -> None:
        within(self, 1, math.inf, "hidden")
        within(self, 0, BELOW_ONE, "dropout", "drop_connect")


@dataclass(frozen=True)
class PolicyConfig:
    """Which layers learn, and how fast."""

    policy: str = "linear_probe"
    """linear_probe, partial[:k], full, lp_ft[:k], gradual[:k|bottom_up], norm_only, surgical:first|middle|last,
    scratch; head2toe[:PERCENT], a probe on features of all stages; stage_probes, probes on several, averaged;
    truncate:k[+POLICY], without the last k stages; auto, what `transfer advise` says."""
    backbone_lr: float = 0.1
    """Rate of the top stage as a fraction of the heads' (scratch: all rates are the heads')."""
    layer_decay: float = 0.8
    """Each stage's rate as a fraction of the one above it."""
    statistics: Literal["auto", "learning", "frozen"] = "auto"
    """Whether BatchNorm statistics of trained stages learn too (auto: only where weights are random at the start)."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "backbone_lr", "layer_decay")


@dataclass(frozen=True)
class RegulariseConfig:
    """What else keeps training from learning its images by heart; 0 is none. A solved probe has its own."""

    l1: float = 0.0
    """Penalty on the absolute values of what --weight-decay is on; with --l2 the elastic net."""
    l2: float = 0.0
    """Penalty on half their squares, in the loss of any optimizer."""
    l2_sp: float = 0.0
    """Penalty on half the squared distance from the pretrained weights (0.1), which then have no weight decay."""
    delta: float = 0.0
    """Penalty on how far a trained stage's channels are from the pretrained ones, by use (0.01); decay as above."""
    bss: float = 0.0
    """Penalty on the square of the least singular value of a batch's features (0.001)."""
    co_tuning: float = 0.0
    """Weight of answering, through the original classifier, as the pretrained network does for an object (2.3)."""
    mixup: float = 0.0
    """Mix images, or what frozen layers make of them (manifold mixup), and labels, with shares from Beta(A, A)."""
    cutmix: float = 0.0
    """Cut a box out of one image into another; its area is from Beta(A, A). Given both, each batch has one of them."""
    stochastic_depth: float = 0.0
    """Chance that an image skips the network's last residual block, if that learns; lower blocks in proportion."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "l1", "l2", "l2_sp", "delta", "bss", "co_tuning", "mixup", "cutmix")
        within(self, 0, BELOW_ONE, "stochastic_depth")


@dataclass(frozen=True)
class LearnConfig:
    """How the loop learns."""

    optimizer: str = "adamw"
    """sgd (with --momentum), nesterov, adagrad, rmsprop, adam, adamw, lbfgs, or any of timm.optim: lion, lamb, ..."""
    lr: float = 3e-3
    """Learning rate of the heads."""
    weight_decay: float = 1e-2
    """On weights, not on biases and norms. Decoupled for adamw, L2 for the other named ones."""
    momentum: float = 0.9
    """For sgd and nesterov, and those of timm that have it (0: plain gradient descent)."""
    batch_size: int = 64
    """Images per step, of all processes (0: all at once, as lbfgs wants it)."""
    accumulate: int = 1
    """Parts in which a batch is taken, their gradients added up (BatchNorm that learns sees parts). Not for lbfgs."""
    epochs: int = 30
    """In all, shared out over a policy's phases."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Of the rate, within each phase; step divides by 10 after each third."""
    warmup: float = 0.05
    """Fraction of a phase's (or cycle's) steps over which the rate rises from zero."""
    cycles: int = 1
    """Times that the schedule runs through a phase (SGDR); the weights at the ends also answer as an ensemble."""
    average: Literal["none", "ema", "swa"] = "none"
    """What is judged and kept: the last weights, their moving average, or their mean over a phase's last quarter."""
    ema_decay: float = 0.995
    """Of the moving average, per step."""
    probe: Literal["solved", "trained"] = "solved"
    """Linear heads on features that stay frozen: solved by L-BFGS, or trained like all else."""
    loss: Literal["cross_entropy", "hinge"] = "cross_entropy"
    """hinge: 1 plus the best wrong score less the right one, if above 0. Probabilities are then no more than ranks."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes (not for hinge)."""
    augment: Literal["none", "flip", "crop", "colour", "pca", "scale"] = "none"
    """flip; crop: flip, random resized; colour, pca: crop, colours jittered or AlexNet's; scale: flip, ResNet's."""
    regularise: RegulariseConfig = field(default_factory=RegulariseConfig)
    clip: float = 1.0
    """Largest norm of the gradient (0: no limit). Not for lbfgs, whose line search needs the loss's own."""
    patience: int = 15
    """Epochs of a phase without a better validation score before it stops (0 or several cycles: never)."""
    refit: bool | None = None
    """Once validation images have chosen, learn anew on train + val for as long (default: for linear_probe only)."""
    interference: bool = False
    """Tell after each epoch how far the heads' gradients agree on what they share: their cosine, in metrics.jsonl."""
    balance: Literal["none", "loss", "sampling"] = "none"
    """Meet class imbalance by a weighted loss or by balanced sampling."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; auto is bfloat16 on GPUs that have it, float32 elsewhere."""
    device: Device = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    workers: int | None = None
    """Threads that decode images (default: one per core). No effect on the result."""

    def __post_init__(self) -> None:
        within(self, ABOVE_ZERO, math.inf, "lr")
        within(self, 0, math.inf, "weight_decay", "clip", "patience", "batch_size")
        within(self, 1, math.inf, "epochs", "workers", "cycles", "accumulate")
        within(self, 0, BELOW_ONE, "momentum", "warmup", "label_smoothing", "ema_decay")


@dataclass(frozen=True)
class ViewConfig:
    """How often a test image is looked at; the mean of the probabilities is the answer."""

    test_crops: Literal[1, 10] = 1
    """10: the corners and the centre, each mirrored, too."""
    test_sizes: CommaInts = ()
    """Sides in pixels at which it is seen, such as 224,256,384 (default: the backbone's own)."""

    def __post_init__(self) -> None:
        within(self, 1, 4096, "test_sizes")

    @property
    def several(self) -> bool:
        """Whether there is more than the plain view."""
        return self.test_crops > 1 or bool(self.test_sizes)


@dataclass(frozen=True)
class CacheConfig:
    """What the frozen layers put out, computed once and kept on disk (TRANSFER_CACHE, else the system's cache)."""

    cache: bool = True
    """Keep it; --no-cache computes it anew each epoch, with the same result."""
    cut_precision: Literal["float16", "float32"] = "float16"
    """Of activations at an inner cut, kept or not. Pooled features are float32."""
    views: int = 0
    """With --augment: draw and keep this many views per image (0: a fresh draw each epoch, never kept)."""
    cache_gb: float = 20.0
    """Size of the whole cache; what was not used for longest goes first."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "views")
        within(self, ABOVE_ZERO, math.inf, "cache_gb")


@dataclass(frozen=True)
class RunConfig:
    """Where the run goes and what it draws from."""

    out: Path | None = None
    """Run folder: config.json, result.json, metrics.jsonl, model.safetensors (default: nothing is saved)."""
    overwrite: bool = False
    """Replace an existing run folder."""
    resume: bool = False
    """Go on with the run in --out where it stopped, to the same bits; where there is none, begin."""
    checkpoint_minutes: float = 10.0
    """A run's state is saved at least so often, besides at the end of epochs."""
    seed: int = 0
    """Of every random draw."""
    seeds: CommaInts = ()
    """Several seeds, such as 0,1,2: one result with mean, standard deviation and each."""
    report: bool = True
    """Keep what a report shows besides figures (exhibits.json), and write the page: report.html."""
    tensorboard: bool = False
    """Write event files for TensorBoard, too, into the run folder (pip install 'transfer[tensorboard]')."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "seed", "seeds", "checkpoint_minutes")
        if self.resume and not self.out:
            raise TransferError("--resume: say which run, with --out")
        if self.resume and self.overwrite:
            raise TransferError("--resume goes on with a run and --overwrite replaces it: say one of them")
        if self.tensorboard and not self.out:
            raise TransferError("--tensorboard writes into the run folder: say --out FOLDER")


@dataclass(frozen=True)
class TrainConfig:
    """Teach a pretrained backbone a set of images."""

    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    run: RunConfig = field(default_factory=RunConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    view: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        if self.cache.views and self.learn.augment == "none":
            raise TransferError(f"--views {self.cache.views} keeps augmented views: say which, such as --augment crop")


@dataclass(frozen=True)
class CompareConfig:
    """Run several policies on one split and print one table."""

    train: TrainConfig = field(default_factory=TrainConfig)
    policies: CommaNames = ("linear_probe", "partial", "full", "scratch")
    """The first is what the others are tested against."""
