"""The typed configs of the commands that teach nothing; torch-free, as :mod:`transfer.config` is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from transfer.config import Device, OnBadImage, ViewConfig


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a saved run, or the ensemble of several, on its own test images, or on other images."""

    run: tyro.conf.Positional[Path]
    """A run folder or its model.safetensors."""
    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Further runs, or a run's snapshots: the mean of all their probabilities is the answer."""
    data: str | None = None
    """Other images: a set's name, a folder, or a CSV manifest (default: the run's own test images)."""
    data_root: Path | None = None
    """Where named sets lie."""
    on_bad_image: OnBadImage = "refuse"
    """What to do about an image that does not decode."""
    device: Device = "auto"
    """Where to compute."""
    cache: bool = True
    """Keep what the frozen layers put out, and use what is kept."""
    out: Path | None = None
    """A file for the result as JSON."""
    view: ViewConfig = field(default_factory=ViewConfig)


@dataclass(frozen=True)
class PredictConfig:
    """Predict the object and domain of images."""

    run: tyro.conf.Positional[Path]
    """A run folder or its model.safetensors."""
    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders or globs; '-' reads a list from standard input."""
    format: Literal["json", "csv"] = "json"
    """JSON lines, or CSV."""
    top: int = 5
    """How many classes with their probabilities."""
    on_bad_image: OnBadImage = "refuse"
    """What to do about an image that does not decode."""
    device: Device = "auto"
    """Where to compute."""
    out: Path | None = None
    """A file to write (default: standard output)."""


@dataclass(frozen=True)
class BackbonesConfig:
    """List backbones: parameters, feature width, stages, and where the weights are."""

    pattern: tyro.conf.Positional[str] = "*"
    """A name or a glob, such as 'resnet*'."""


@dataclass(frozen=True)
class CacheCommandConfig:
    """List, empty or check what is kept of frozen layers and inspected images."""

    action: tyro.conf.Positional[Literal["ls", "clear", "verify"]] = "ls"
    """verify reads all of it and removes what is damaged."""


@dataclass(frozen=True)
class FetchConfig:
    """Fetch a data set, or check the copy at hand."""

    name: tyro.conf.Positional[Literal["office31", "digits"]]
    """Which set."""
    verify: bool = False
    """Only check: name missing, altered, extra and duplicate files."""
    data_root: Path | None = None
    """Where named sets lie (default: TRANSFER_DATA, else the cache)."""


@dataclass(frozen=True)
class DemoConfig:
    """A first run on embedded data with the bundled backbone: no network, under a minute and a half."""

    seed: int = 0
    """Of every random draw."""
