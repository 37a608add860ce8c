"""Typed configs of learning from pixels; torch-free, as :mod:`transfer.config.train` is."""

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
# 3,280 images to learn from, 205 to validate on and 625 to test on, of Office-31's 4,110.
COURSE_DATA = DataConfig("office31", test=625 / 4110, val=205 / 3485)


@dataclass(frozen=True)
class NetworkConfig:
    """An MLP or a small CNN on pixels."""

    network: Literal["mlp", "cnn"] = "mlp"
    """cnn: blocks of a 3 x 3 convolution and pooling, then the mean over places."""
    hidden: CommaInts = (64, 32, 10)
    """Units of each hidden layer, or channels of each block."""
    activation: Activation = "relu"
    """After each of them; maxout takes the larger of two."""
    initialisation: Initialisation = "deviation"
    """How weights are drawn, biases being zero; too_small and too_large are a tenth of he, and ten times as much."""
    deviation: float = 0.03
    """Standard deviation of the weights under deviation."""
    batch_norm: bool = False
    """Before each activation."""
    pooling: Literal["max", "fractional"] = "max"
    """Of the CNN: halve each side, or divide it by the square root of 2 at random places."""

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "hidden")
        check_range(self, ABOVE_ZERO, math.inf, "deviation")


@dataclass(frozen=True)
class ScratchConfig:
    """How a network learns from pixels."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    inputs: Inputs = "raw"
    """raw: 0 to 255; unit: 0 to 1; standardised: each channel with mean 0 and deviation 1 over the training images."""
    side: int = 100
    """Pixels of an image's sides; its aspect is not kept."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Without momentum and weight decay."""
    lr: float = 1e-4
    """Learning rate, the same in every step."""
    epochs: int = 50
    """How often each image is seen."""
    batch_size: int = 10
    """Images per step."""
    device: Device = "auto"
    """auto takes CUDA, then MPS, then the CPU."""

    def __post_init__(self) -> None:
        check_range(self, ABOVE_ZERO, math.inf, "lr")
        check_range(self, 1, math.inf, "side", "epochs", "batch_size")


@dataclass(frozen=True)
class CourseConfig:
    """The course's networks, beside what was reported of them and beside transfer."""

    data: DataConfig = field(default_factory=lambda: COURSE_DATA)
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("mobilenetv2_100"))
    rows: CommaInts = (1, 2, 3, 4, 5)
    """Which networks: 1 to 5 as reported, 6 a small CNN; 4 and 5 differ in the optimizer alone."""
    inputs: CommaNames = ("raw", "standardised")
    """Pixels as they are (the course's), 0 to 1 (unit), or standardised."""
    policies: CommaNames = ("linear_probe",)
    """Of transfer, on the same images; none: --policies ''."""
    seeds: CommaInts = (0, 1, 2)
    """Of the split, the weights and the order of images."""
    epochs: int | None = None
    """For every row, instead of its own number."""
    device: Device = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Folder for config.json and result.json (default: nothing is saved)."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        check_range(self, 1, 6, "rows")
        check_range(self, 0, math.inf, "seeds")
        check_range(self, 1, math.inf, "epochs")
        known(self.inputs, INPUTS, "inputs")
        if not (self.rows and self.inputs and self.seeds):
            raise TransferError("--rows, --inputs and --seeds: give at least one of each")


@dataclass(frozen=True)
class QuestionsConfig:
    """The review questions: one choice varied at a time, all else as it should be."""

    data: DataConfig = field(default_factory=DataConfig)
    networks: CommaNames = ("mlp", "cnn")
    """Which networks."""
    side: int = 32
    """Pixels of an image's sides."""
    epochs: int = 10
    """Of each run."""
    batch_size: int = 32
    """Images per step."""
    lr: float = 0.01
    """Of plain SGD."""
    seeds: CommaInts = (0,)
    """Of the split, the weights and the order of images."""
    device: Device = "auto"
    """auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Folder for config.json, result.json and layers.png (default: nothing is saved)."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "epochs", "batch_size", "side")
        check_range(self, ABOVE_ZERO, math.inf, "lr")
        check_range(self, 0, math.inf, "seeds")
        known(self.networks, ("mlp", "cnn"), "networks")
        if not (self.networks and self.seeds):
            raise TransferError("--networks and --seeds: give at least one of each")


def known(names: tuple[str, ...], choices: tuple[str, ...], option: str) -> None:
    """Check that all `names` are among `choices`.

    Raises
    ------
    TransferError
        One is not.
    """
    for name in names:
        if name not in choices:
            raise TransferError(f"--{option} {name}: it must be of {', '.join(choices)}{did_you_mean(name, choices)}")
