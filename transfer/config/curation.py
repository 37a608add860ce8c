"""The typed configs of the commands on data sets: inspect and review. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from transfer.config.checked import Config
from transfer.config.ranges import NotNegative, Within
from transfer.config.shared import BackboneConfig, CacheConfig, Device, ImagesConfig
from transfer.errors import TransferError


@dataclass(frozen=True)
class InspectConfig(Config):
    """Show what is in a data set and what is wrong with it: duplicates, wrong labels, bad and odd images."""

    images: ImagesConfig = field(default_factory=lambda: ImagesConfig(on_bad_image="skip"))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    out: Path | None = None
    """Folder for the page inspection.html and the findings findings.json, which replace older ones (default:
    runs/<data>-inspected; in Python: nothing is saved)."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    seed: NotNegative[int] = 0
    """Random seed of the folds, and of samples of images."""


@dataclass(frozen=True)
class ReviewConfig(Config):
    """Review labels in the browser, on this machine alone, by single keys: accept, relabel, exclude, undo."""

    images: ImagesConfig = field(default_factory=lambda: ImagesConfig(on_bad_image="skip"))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    picks: Path | None = None
    """Review the images of this CSV file, which `transfer pick` writes (default: those whose labels are most likely
    wrong)."""
    class_name: str | None = None
    """Review all images of this class."""
    out: Path | None = None
    """CSV file of the decisions, which continues if it exists; train with it by --corrections (default:
    runs/<data>-review/labels.csv)."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port on 127.0.0.1 (0: a free one)."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    seed: NotNegative[int] = 0
    """Random seed of the folds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picks and self.class_name:
            raise TransferError("--picks and --class-name each choose the images to review: give only one of them")
