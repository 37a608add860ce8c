"""The typed configs of the commands other than train and adapt. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from transfer.config.checked import Config
from transfer.config.lists import CommaNames
from transfer.config.ranges import AtLeastOne, Fraction, NotEmpty, NotNegative, Positive, Share, Within
from transfer.config.shared import Advanced, Device, Engine, LabelsConfig, OnBadImage, ViewConfig
from transfer.config.train import LearnConfig, TrainConfig
from transfer.errors import TransferError


@dataclass(frozen=True)
class EvaluateConfig(LabelsConfig):
    """Evaluate a saved run, or an ensemble of several, on its test images or on other images."""

    run: tyro.conf.Positional[Path]
    """Run folder, or its model.safetensors."""
    more: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Further runs or snapshots of a run; the prediction is the mean of all their probabilities."""
    data: str | None = None
    """Images to evaluate on: a data set's name, an image folder, a CSV manifest or tar shards (default: the run's test
    images)."""
    on_bad_image: OnBadImage = "refuse"
    """If an image is missing or cannot be decoded: refuse all, or skip the image and count it."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    engine: Advanced[Engine | None] = None
    """What runs the frozen layers (default: as the run)."""
    cache: bool = True
    """Use the disk cache of frozen features."""
    out: Path | None = None
    """JSON file for the result."""
    soup: Path | None = None
    """File name ending in .safetensors: average the weights of all runs instead of their probabilities (model soup),
    and save that model there, for predict and export."""
    soup_kind: Literal["uniform", "greedy"] = "uniform"
    """Which runs a model soup averages: all (uniform), or the best and each further one with which the accuracy on
    validation images does not fall (greedy)."""
    view: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.soup and not self.more:
            raise TransferError("--soup averages the weights of several runs: name two or more")
        for option in ("labels", "corrections"):
            if getattr(self, option) and self.data is None:
                raise TransferError(f"--{option} needs --data, the images that the labels are of")


@dataclass(frozen=True)
class PredictConfig(Config):
    """Predict the object and domain of images."""

    run: tyro.conf.Positional[Path]
    """Run folder, or its model.safetensors."""
    images: tyro.conf.Positional[tuple[str, ...]] = ()
    """Image files, folders, globs or tar shards; '-' reads a list of files from standard input."""
    format: Literal["auto", "json", "csv"] = "auto"
    """JSON lines or CSV; auto writes CSV if the name of --out ends in .csv, else JSON lines."""
    top: AtLeastOne[int] = 5
    """Number of classes listed with their probabilities."""
    on_bad_image: OnBadImage = "refuse"
    """If an image cannot be decoded: refuse all, or skip the image and count it."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    engine: Advanced[Engine | None] = None
    """What runs the frozen layers (default: as the run)."""
    out: Path | None = None
    """Output file (default: standard output)."""
    resume: bool = False
    """Resume the predictions in --out where they stopped, with identical results; start them if there are none."""
    coverage: Share[float | None] = None
    """Add a set of likely classes to each answer that contains the true class this often, such as 0.9, for images like
    those of the training set."""
    min_confidence: Fraction[float] = 0.0
    """Answer nothing where the probability of the likeliest class is lower."""
    max_unknown: Annotated[float, Within(0, 1)] = 1.0
    """Name no object where object_unknown, the share of known images that are less strange than this one, is higher,
    such as 0.99."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and not self.out:
            raise TransferError("--resume needs the file of the predictions: add --out FILE")

    @property
    def written_format(self) -> Literal["json", "csv"]:
        """The format of the predictions."""
        if self.format == "auto":
            return "csv" if self.out and self.out.suffix.lower() == ".csv" else "json"
        return self.format


@dataclass(frozen=True)
class UpdateConfig(LabelsConfig):
    """Add images, classes or domains to a saved run, or correct its labels: a new run beside the old one."""

    run: tyro.conf.Positional[Path]
    """Run folder of `transfer train`; it stays as it is."""
    add: str | None = None
    """New labelled images: a data set's name, an image folder or a CSV manifest. Unless they come split, each class is
    split by the run's fractions; near-duplicates of old images join these, and those of test images are tested on."""
    corrections: Path | None = field(default=None, kw_only=True)
    """CSV file with columns path,object[,domain] of images anywhere (or path and the column of several labels), or the
    decisions of `transfer review`. The label replaces that of the run's image with the same bytes; other images are
    added, and trained on."""
    domain: str | None = None
    """Domain of new images that name none (default: the run's domain if it has one, else unknown)."""
    epochs: AtLeastOne[int | None] = None
    """Epochs of trained policies, from the old weights (default: a third of the run's). Solved policies need none."""
    max_loss: Fraction[float] = 0.01
    """How much accuracy on the old validation images an epoch of a trained policy may lose, at least one standard
    error; if all lose more, the old weights are used."""
    on_bad_image: OnBadImage = "refuse"
    """If an image is bad, or an old one is missing or has changed: refuse all, or skip the image and count it."""
    device: Device | None = None
    """Where to compute (default: as the run)."""
    engine: Advanced[Engine | None] = None
    """What runs the frozen layers (default: as the run)."""
    out: Path | None = None
    """Folder of the new run; none: nothing is saved (default: RUN-updated, -2 and so on beside an existing one; in
    Python: nothing is saved)."""
    overwrite: bool = False
    """Replace an existing run folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.add is None and self.corrections is None:
            raise TransferError("--add DATA or --corrections FILE.csv is needed: there is nothing to update with")
        if self.labels and self.add is None:
            raise TransferError("--labels needs --add, the folder of the images that the labels are of")


@dataclass(frozen=True)
class ReportConfig(Config):
    """Write the page that explains a run, or one that compares several."""

    runs: tyro.conf.Positional[NotEmpty[tuple[Path, ...]]]
    """Run folders of train, adapt or compare; several are compared with the first."""
    out: Path | None = None
    """Output file (default: report.html in the run folder; for several runs, compare.html in the working directory)."""


@dataclass(frozen=True)
class ExportConfig(Config):
    """Export a saved run, with its preprocessing, to another format."""

    run: tyro.conf.Positional[Path]
    """Run folder, or its model.safetensors."""
    format: Literal["onnx", "onnx-int8", "openvino", "litert", "web", "torch_export", "safetensors", "timm"] = "onnx"
    """onnx: ONNX file; onnx-int8: smaller and faster ONNX file, calibrated on training images; openvino: .xml and .bin
    of OpenVINO; litert: .tflite file for phones; web: folder with a page that classifies in the browser; torch_export:
    .pt2 file of torch.export; safetensors: weights, with a JSON file beside them; timm: folder that timm loads."""
    out: Path | None = None
    """Output file, or folder for web and timm (default: beside the run, under its name)."""
    coverage: Share[float | None] = None
    """Add prediction sets of this coverage, such as 0.9: as outputs, or the least probability of a class in the set
    (safetensors)."""
    unknown: bool = False
    """Add the output object_unknown: the share of known images that are less strange (formats with a computation)."""
    max_loss: Fraction[float] = 0.01
    """Accuracy on the test images that onnx-int8 may lose against float32; if a head loses more, nothing is written."""
    web_runtime: Path | None = None
    """Folder or .tgz of the npm package onnxruntime-web, for web (default: npm downloads it)."""


@dataclass(frozen=True)
class BackbonesConfig(Config):
    """List backbones with parameters, licence and the source of their weights.

    Without a pattern: a shortlist from small to large, with ImageNet accuracy and images per second on this machine.
    """

    pattern: tyro.conf.Positional[str] = ""
    """Name or glob, such as 'resnet*'; '*' lists all (default: the shortlist)."""


@dataclass(frozen=True)
class CacheCommandConfig(Config):
    """List, clear or verify the cache of frozen features and inspected images."""

    action: tyro.conf.Positional[Literal["ls", "clear", "verify"]] = "ls"
    """ls: list; clear: remove all; verify: read all and remove damaged files."""


@dataclass(frozen=True)
class FetchConfig(LabelsConfig):
    """Download a named data set, or verify a local copy; or show how images of your own are read."""

    name: tyro.conf.Positional[str]
    """Name of a data set (office31, digits); or an image folder, a CSV manifest or tar shards, to show how it is
    read."""
    verify: bool = False
    """Only verify a named set: list missing, changed, extra and duplicate files."""
    targets: CommaNames = ()
    """Further CSV columns or JSON keys to show: NAME or NAME:KIND, where KIND is a head kind."""


@dataclass(frozen=True)
class DemoConfig(Config):
    """Compare two pretrained networks and four policies on embedded digits: no network access, under 90 seconds."""

    seed: NotNegative[int] = 0
    """Random seed."""


def _quick_training() -> TrainConfig:
    # Large batches: an epoch on cached features takes half as long as with batches of 64.
    return TrainConfig(learn=LearnConfig(probe="trained", batch_size=256, epochs=9))


@dataclass(frozen=True)
class SearchConfig(Config):
    """Search hyperparameters on validation images; --final evaluates the best ones on the test images, once."""

    train: TrainConfig = field(default_factory=_quick_training)
    space: tuple[str, ...] = ("lr", "weight_decay")
    """Search space: NAME=LOW:HIGH (log-uniform; uniform if LOW is 0), NAME=A,B,C, or NAME for its usual values. NAME is
    lr, weight_decay, batch_size, optimizer, policy, heads, hidden, dropout, augment or another training option."""
    trials: AtLeastOne[int] = 100
    """Number of trials (grid: the largest number)."""
    sampler: Literal["random", "grid", "tpe"] = "random"
    """Random samples, a grid of evenly spaced values, or Optuna's TPE sampler."""
    fine: Advanced[Fraction[float]] = 0.4
    """Share of the trials, run last, that are sampled where the best tenth of the others lie (random only)."""
    halving: Advanced[AtLeastOne[int]] = 3
    """Successive halving: after 1/9, 1/3, ... of the epochs only the best 1/N of the trials continue (1: all do)."""
    final: bool = False
    """Train once with the best settings and evaluate on the test images."""


@dataclass(frozen=True)
class LrFindConfig(Config):
    """Find a learning rate by a range test: raise it step by step and record the loss."""

    train: TrainConfig = field(default_factory=lambda: TrainConfig(learn=LearnConfig(probe="trained")))
    low: Positive[float] = 1e-7
    """Lowest learning rate tried."""
    high: Positive[float] = 10.0
    """Highest learning rate tried."""
    steps: Annotated[int, Within(10)] = 100
    """Number of mini-batches; the learning rate grows by the same factor after each."""


@dataclass(frozen=True)
class AdviseConfig(Config):
    """Recommend a freeze policy for a data set, with expected accuracy, cost and reasons, without training."""

    train: TrainConfig = field(default_factory=TrainConfig)
    backbones: CommaNames = ()
    """Backbones to rank; the advice is for the best. Those whose weights are not on this machine are skipped."""
    budget: Positive[float | None] = None
    """Longest time in seconds that a frozen network of --backbones may take for all images on this machine, without
    decoding them; slower ones are not run (default: no limit)."""
    run: bool = False
    """Train as advised, in the folder --out/run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and not self.backbones:
            raise TransferError("--budget chooses among several backbones: add --backbones NAME,NAME,...")
