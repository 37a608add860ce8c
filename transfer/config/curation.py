"""The typed configs of the commands on data sets: inspect, pick and review. Imports no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from transfer.config.checked import Config
from transfer.config.lists import CommaInts, CommaNames
from transfer.config.ranges import AtLeastOne, NotEmpty, NotNegative, Share, Within
from transfer.config.shared import Advanced, BackboneConfig, CacheConfig, Device, ImagesConfig
from transfer.errors import TransferError


@dataclass(frozen=True)
class CurationConfig(Config):
    """The images of a data set, and the pretrained network that sees them."""

    images: ImagesConfig = field(default_factory=lambda: ImagesConfig(on_bad_image="skip"))
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    device: Advanced[Device] = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    seed: Advanced[NotNegative[int]] = 0
    """Random seed of the folds, of samples and of clusters."""


@dataclass(frozen=True)
class InspectConfig(CurationConfig):
    """Show what is in a data set and what is wrong with it: duplicates, wrong labels, bad and odd images."""

    out: Path | None = None
    """Folder for the page inspection.html and the findings findings.json, which replace older ones (default:
    runs/<data>-inspected; in Python: nothing is saved)."""


@dataclass(frozen=True)
class ReviewConfig(CurationConfig):
    """Review labels in the browser, on this machine alone, by single keys: accept, relabel, exclude, undo."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picks and self.class_name:
            raise TransferError("--picks and --class-name each choose the images to review: give only one of them")


@dataclass(frozen=True)
class SimulationConfig(Config):
    """What strategies would have reached on a labelled set."""

    simulate: bool = False
    """On a set with labels: hide these, pick in rounds of --n, and show how the accuracy on test images grows, beside
    that of random picks. --out is then the JSON file of the result, with a page of the
    same name (default: <data>-simulated.json)."""
    strategies: CommaNames = ()
    """Strategies to compare with random picks (default: --strategy)."""
    rounds: AtLeastOne[int] = 8
    """Number of rounds."""
    seeds: Advanced[NotEmpty[NotNegative[CommaInts]]] = (0, 1, 2, 3, 4)
    """Random seeds, of which the mean is shown: of the split, and of the strategies."""
    test: Advanced[Share[float]] = 0.2
    """Fraction of the images that is held out for testing, if the set has no split."""


@dataclass(frozen=True)
class PickConfig(CurationConfig):
    """Choose which images to label next, and list them in a CSV file to fill in."""

    images: ImagesConfig = field(default_factory=ImagesConfig)
    n: AtLeastOne[int] = 20
    """Number of images to choose."""
    strategy: str = "auto"
    """How they are chosen."""
    out: Path | None = None
    """CSV file with the images to label first, then those with labels; a page of the same name has the pictures.
    Labels that were filled in are read from it, and new images are added to it (default: <data>-picks.csv; in Python:
    nothing is saved)."""
    overwrite: bool = False
    """Replace the CSV file and lose the labels that were filled in."""
    only_new: Advanced[bool] = False
    """List only the images to label, not those with labels in the data set."""
    simulation: SimulationConfig = field(default_factory=SimulationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        suffix, what = (".json", "JSON") if self.simulation.simulate else (".csv", "CSV")
        if self.out and self.out.suffix.lower() != suffix:
            raise TransferError(
                f"--out {self.out}: it must be a {what} file, such as {self.out.stem or 'picks'}{suffix}"
            )
