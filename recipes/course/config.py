"""Typed configs of training on pixels. Imports no torch, like :mod:`transfer.config.train`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import ABOVE_ZERO, check_range
from transfer.config.shared import BackboneConfig, Device
from transfer.config.train import DataConfig
from transfer.errors import TransferError, did_you_mean

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "maxout"]
Initialisation = Literal["too_small", "too_large", "xavier", "he", "deviation"]
Inputs = Literal["raw", "unit", "standardised"]

INPUTS = ("raw", "unit", "standardised")
# 3,280 training, 205 validation and 625 test images of Office-31's 4,110, as in the course.
COURSE_DATA = DataConfig("office31", test=625 / 4110, val=205 / 3485)


@dataclass(frozen=True)
class NetworkConfig:
    """An MLP or a small CNN on pixels."""

    network: Literal["mlp", "cnn"] = "mlp"
    """cnn: blocks of a 3 x 3 convolution and pooling, then global average pooling."""
    hidden: CommaInts = (64, 32, 10)
    """Units of each hidden layer, or channels of each block."""
    activation: Activation = "relu"
    """Activation after each hidden layer; maxout takes the larger of two units."""
    initialisation: Initialisation = "deviation"
    """Distribution of the initial weights (biases are 0); too_small and too_large are a tenth and ten times of he."""
    deviation: float = 0.03
    """Standard deviation of the initial weights with --initialisation deviation."""
    batch_norm: bool = False
    """Batch normalisation before each activation."""
    pooling: Literal["max", "fractional"] = "max"
    """Pooling of the CNN: max halves each side; fractional divides it by about the square root of 2."""

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "hidden")
        check_range(self, ABOVE_ZERO, math.inf, "deviation")


@dataclass(frozen=True)
class ScratchConfig:
    """Training of a network on pixels."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    inputs: Inputs = "raw"
    """raw: 0 to 255; unit: 0 to 1; standardised: mean 0 and standard deviation 1 per channel of the training images."""
    side: int = 100
    """Side of the square input images, in pixels; the aspect ratio is not preserved."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer, without momentum and weight decay."""
    lr: float = 1e-4
    """Learning rate, constant."""
    epochs: int = 50
    """Passes over the training images."""
    batch_size: int = 10
    """Images per step."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""

    def __post_init__(self) -> None:
        check_range(self, ABOVE_ZERO, math.inf, "lr")
        check_range(self, 1, math.inf, "side", "epochs", "batch_size")


@dataclass(frozen=True)
class CourseConfig:
    """Course baseline: its networks, compared with the reported accuracies and with transfer."""

    data: DataConfig = field(default_factory=lambda: COURSE_DATA)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    rows: CommaInts = (1, 2, 3, 4, 5)
    """Networks to train: 1 to 5 as reported, 6 a small CNN; 4 and 5 differ only in the optimizer."""
    inputs: CommaNames = ("raw", "standardised")
    """Scaling of the pixels: raw (0 to 255, as in the course), unit (0 to 1) or standardised."""
    policies: CommaNames = ("linear_probe",)
    """Freeze policies of the transfer runs on the same images; none: --policies ''."""
    seeds: CommaInts = (0, 1, 2)
    """Random seeds of the split, the initial weights and the order of images."""
    epochs: int | None = None
    """Epochs of every network (default: as reported)."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Output folder for config.json and result.json (default: nothing is saved)."""
    overwrite: bool = False
    """Overwrite an existing run in the output folder."""

    def __post_init__(self) -> None:
        check_range(self, 1, 6, "rows")
        check_range(self, 0, math.inf, "seeds")
        check_range(self, 1, math.inf, "epochs")
        check_names(self.inputs, INPUTS, "inputs")
        if not (self.rows and self.inputs and self.seeds):
            raise TransferError("--rows, --inputs and --seeds: give at least one of each")


@dataclass(frozen=True)
class QuestionsConfig:
    """Review questions: one choice varied at a time from a sound base."""

    data: DataConfig = field(default_factory=DataConfig)
    networks: CommaNames = ("mlp", "cnn")
    """Networks to train: mlp, cnn."""
    side: int = 32
    """Side of the square input images, in pixels."""
    epochs: int = 10
    """Epochs of each run."""
    batch_size: int = 32
    """Images per step."""
    lr: float = 0.01
    """Learning rate of SGD without momentum."""
    seeds: CommaInts = (0,)
    """Random seeds of the split, the initial weights and the order of images."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Output folder for config.json, result.json and layers.png (default: nothing is saved)."""
    overwrite: bool = False
    """Overwrite an existing run in the output folder."""

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "epochs", "batch_size", "side")
        check_range(self, ABOVE_ZERO, math.inf, "lr")
        check_range(self, 0, math.inf, "seeds")
        check_names(self.networks, ("mlp", "cnn"), "networks")
        if not (self.networks and self.seeds):
            raise TransferError("--networks and --seeds: give at least one of each")


def check_names(names: tuple[str, ...], choices: tuple[str, ...], option: str) -> None:
    """Check that all `names` are among `choices`.

    Raises
    ------
    TransferError
        A name is not among them.
    """
    for name in names:
        if name not in choices:
            raise TransferError(
                f"--{option} {name}: it must be one of {', '.join(choices)}{did_you_mean(name, choices)}"
            )
