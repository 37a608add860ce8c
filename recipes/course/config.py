"""Typed configs of training on pixels. Imports no torch, like :mod:`transfer.config.train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from transfer.config.checked import Config
from transfer.config.lists import CommaInts, CommaNames, comma_separated
from transfer.config.ranges import AtLeastOne, NotEmpty, NotNegative, Positive, Within
from transfer.config.shared import BackboneConfig, Device
from transfer.config.train import DataConfig

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"]
Initialisation = Literal["too_small", "too_large", "xavier", "he", "deviation"]
Inputs = Literal["raw", "unit", "standardised"]
Network = Literal["mlp", "cnn"]

# 3,280 training, 205 validation and 625 test images of Office-31's 4,110, as in the course.
COURSE_DATA = DataConfig("office31", test=625 / 4110, val=205 / 3485)


@dataclass(frozen=True)
class NetworkConfig(Config):
    """An MLP or a small CNN on pixels."""

    network: Network = "mlp"
    """cnn: blocks of a 3 x 3 convolution and pooling, then global average pooling."""
    hidden: AtLeastOne[CommaInts] = (64, 32, 10)
    """Units of each hidden layer, or channels of each block."""
    activation: Activation = "relu"
    """Activation after each hidden layer; maxout takes the larger of two units."""
    initialisation: Initialisation = "deviation"
    """Distribution of the initial weights (biases are 0); too_small and too_large are a tenth and ten times of he."""
    deviation: Positive[float] = 0.03
    """Standard deviation of the initial weights with --initialisation deviation."""
    batch_norm: bool = False
    """Batch normalisation before each activation."""
    pooling: Literal["max", "fractional"] = "max"
    """Pooling of the CNN: max halves each side; fractional divides it by about the square root of 2."""


@dataclass(frozen=True)
class ScratchConfig(Config):
    """Training of a network on pixels."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    inputs: Inputs = "raw"
    """raw: 0 to 255; unit: 0 to 1; standardised: mean 0 and standard deviation 1 per channel of the training images."""
    side: AtLeastOne[int] = 100
    """Side of the square input images, in pixels; the aspect ratio is not preserved."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer, without momentum and weight decay."""
    lr: Positive[float] = 1e-4
    """Learning rate, constant."""
    epochs: AtLeastOne[int] = 50
    """Passes over the training images."""
    batch_size: AtLeastOne[int] = 10
    """Images per step."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""


@dataclass(frozen=True)
class CourseConfig(Config):
    """Course baseline: its networks, compared with the reported accuracies and with transfer."""

    data: DataConfig = field(default_factory=lambda: COURSE_DATA)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rows: NotEmpty[Annotated[CommaInts, Within(1, 6)]] = (1, 2, 3, 4, 5)
    """Networks to train: 1 to 5 as reported, 6 a small CNN; 4 and 5 differ only in the optimizer."""
    inputs: NotEmpty[Annotated[tuple[Inputs, ...], comma_separated(str)]] = ("raw", "standardised")
    """Scaling of the pixels: raw (0 to 255, as in the course), unit (0 to 1) or standardised."""
    policies: CommaNames = ("linear_probe",)
    """Freeze policies of the transfer runs on the same images; none: --policies ''."""
    seeds: NotEmpty[NotNegative[CommaInts]] = (0, 1, 2)
    """Random seeds of the split, the initial weights and the order of images."""
    epochs: AtLeastOne[int | None] = None
    """Epochs of every network (default: as reported)."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Output folder for config.json and result.json (default: nothing is saved)."""
    overwrite: bool = False
    """Overwrite an existing run in the output folder."""


@dataclass(frozen=True)
class QuestionsConfig(Config):
    """Review questions: one choice varied at a time from a sound base."""

    data: DataConfig = field(default_factory=DataConfig)
    networks: NotEmpty[Annotated[tuple[Network, ...], comma_separated(str)]] = ("mlp", "cnn")
    """Networks to train: mlp, cnn."""
    side: AtLeastOne[int] = 32
    """Side of the square input images, in pixels."""
    epochs: AtLeastOne[int] = 10
    """Epochs of each run."""
    batch_size: AtLeastOne[int] = 32
    """Images per step."""
    lr: Positive[float] = 0.01
    """Learning rate of SGD without momentum."""
    seeds: NotEmpty[NotNegative[CommaInts]] = (0,)
    """Random seeds of the split, the initial weights and the order of images."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Output folder for config.json, result.json and layers.png (default: nothing is saved)."""
    overwrite: bool = False
    """Overwrite an existing run in the output folder."""
