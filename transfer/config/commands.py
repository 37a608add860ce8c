"""The typed configs of further commands; torch-free, as :mod:`transfer.config.train` is."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import ABOVE_ZERO, BELOW_ONE, within
from transfer.config.train import (
    Device,
    LearnConfig,
    OnBadImage,
    TrainConfig,
    ViewConfig,
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a saved run, or the ensemble of several, on its own test images, or on other images."""

    run: tyro.conf.Positional[Path]
    """A run folder or its model.safetensors."""
    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Further runs, or a run's snapshots: the mean of all their probabilities is the answer."""
    data: str | None = None
    """Other images: a set's name, a folder, a CSV manifest, or shards (default: the run's own test images)."""
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
    """Files, folders, globs or tar shards; '-' reads a list from standard input."""
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
class ReportConfig:
    """Write the page that explains a run, or one that compares several."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of train, adapt or compare; of several the first is what the others are held against."""
    out: Path | None = None
    """The file to write (default: report.html in the run folder; of several runs compare.html here)."""


@dataclass(frozen=True)
class ExportConfig:
    """Write a saved run in a format that others use, its preprocessing with it."""

    run: tyro.conf.Positional[Path]
    """A run folder or its model.safetensors."""
    format: Literal["onnx", "torch_export", "safetensors", "timm"] = "onnx"
    """onnx; torch_export: a .pt2 of torch.export; safetensors: plain weights, a JSON beside them; timm: a folder."""
    out: Path | None = None
    """A file, or a folder for timm (default: beside the run, under its name)."""


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


def _quick() -> TrainConfig:
    # Large batches and few epochs: an epoch on kept features takes half as long as with batches of 64.
    return TrainConfig(learn=LearnConfig(probe="trained", batch_size=256, epochs=9))


@dataclass(frozen=True)
class SearchConfig:
    """Search for good settings by validation images alone; test images are looked at once, with --final."""

    train: TrainConfig = field(default_factory=_quick)
    space: tuple[str, ...] = ("lr", "weight_decay")
    """What to search over: NAME=LOW:HIGH (log-uniform, or uniform from 0), NAME=A,B,C, or NAME for its usual values.
    lr, weight_decay, batch_size, optimizer, policy, heads, hidden, dropout, augment, and more."""
    trials: int = 100
    """How many settings to try; for a grid, at most."""
    sampler: Literal["random", "grid", "tpe"] = "random"
    """Drawn at random, the product of evenly spaced values, or where Optuna's TPE expects most."""
    fine: float = 0.4
    """Last share of the trials, drawn from the part of the space where the best tenth of the others lie (random)."""
    halving: int = 3
    """Successive halving: at 1/9, 1/3, ... of the epochs only the best one in so many goes on (1: all do)."""
    final: bool = False
    """Train once with the best settings, and measure that on the test images."""

    def __post_init__(self) -> None:
        within(self, 1, math.inf, "trials", "halving")
        within(self, 0, BELOW_ONE, "fine")


@dataclass(frozen=True)
class LrFindConfig:
    """Find a learning rate: raise it step by step from far too low to far too high, and watch the loss."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(learn=LearnConfig(probe="trained")))
    low: float = 1e-7
    """The first rate."""
    high: float = 10.0
    """The last."""
    steps: int = 100
    """Mini-batches, each at a rate larger than the last by the same factor."""

    def __post_init__(self) -> None:
        within(self, ABOVE_ZERO, math.inf, "low", "high")
        within(self, 10, math.inf, "steps")


def _alike() -> TrainConfig:
    # All learn from the same images, for as long as they are told to.
    return TrainConfig(learn=LearnConfig(refit=False, patience=0))


@dataclass(frozen=True)
class WorthConfig:
    """What pretraining is worth: policies beside the same network from scratch, by number of labels and by seconds."""

    train: TrainConfig = field(default_factory=_alike)
    labels: CommaInts = (1, 2, 5, 10, 20, 0)
    """Labels per class and domain, 0 for all, such as 5,20,0. Runs with the most are timed."""
    policies: CommaNames = ("linear_probe", "partial", "full", "lp_ft", "gradual", "gradual:bottom_up")
    """What is held against scratch."""
    scratch_lr: float = 1e-2
    """Scratch's own learning rate."""
    scratch_epochs: int = 60
    """Scratch's own number of epochs."""

    def __post_init__(self) -> None:
        within(self, 0, math.inf, "labels")
        within(self, ABOVE_ZERO, math.inf, "scratch_lr")
        within(self, 1, math.inf, "scratch_epochs")


@dataclass(frozen=True)
class AdviseConfig:
    """Say which case a set of images is, which policy suits it, what that costs and why. Nothing is trained."""

    train: TrainConfig = field(default_factory=TrainConfig)
    backbones: CommaNames = ()
    """Rank these, as far as their weights are at hand, and advise on the best."""
    run: bool = False
    """Carry the advice out, in --out/run."""


@dataclass(frozen=True)
class CasesConfig:
    """Hold advice against the truth: every policy in every case, what was advised beside what was best."""

    train: TrainConfig = field(default_factory=TrainConfig)
    cases: CommaNames = ()
    """Sets as for --data, each with @LABELS for so many a class and domain, such as flowers12,neu_cls@5 (default:
    --data with 5 and with all)."""
    backbones: CommaNames = ()
    """Each is advised on and trained (default: --backbone)."""
    policies: CommaNames = (
        "linear_probe",
        "head2toe",
        "stage_probes",
        "truncate:1",
        "truncate:2",
        "partial:1",
        "partial:2",
        "norm_only",
        "surgical:middle",
        "lp_ft:2",
        "lp_ft",
        "full",
        "gradual",
    )
    """What there is to choose from; the advised one is run in any case, and linear_probe."""
