"""Options that several commands share: where images, weights, results and cached features are, and how to train.

Imports no torch. An option marked :data:`Advanced` is shown by ``--help-all`` only.
"""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from transfer.config.checked import Config
from transfer.config.lists import CommaInts
from transfer.config.ranges import AtLeastOne, Fraction, NotNegative, Pixels, Positive
from transfer.errors import TransferError

T = TypeVar("T")

ADVANCED = "advanced"  # the annotation of an option that most people do not need
Advanced = Annotated[T, ADVANCED]

OnBadImage = Literal["refuse", "skip"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Engine = Literal["auto", "torch", "onnxruntime", "openvino", "compile", "int8"]
Augmentation = Literal["none", "flip", "crop", "colour", "pca", "scale"]

DEFAULT_BACKBONE = "tf_efficientnet_lite0"  # its ImageNet weights are in a package that is installed with this one


@dataclass(frozen=True)
class LabelsConfig(Config):
    """Where named data sets are, and what names the labels of images in a folder."""

    _: KW_ONLY
    data_root: Path | None = None
    """Folder of named data sets (default: $TRANSFER_DATA, else the cache folder)."""
    labels: str | None = None
    """CSV file that names the labels of the images in a folder; or folders: the class folders name them; or nested:
    every folder above an image is one of its labels (default: the CSV file in the folder if there is one, else its
    class folders)."""
    corrections: Advanced[Path | None] = None
    """CSV file of decisions that `transfer review` writes: labels it changes, and images it excludes."""


@dataclass(frozen=True)
class ImagesConfig(LabelsConfig):
    """Which images are read, and from where."""

    data: str = "digits"
    """A data set's name (digits, office31), an image folder, a CSV manifest or tar shards; relative names are also
    looked up below --data-root. --data can be left out: transfer train my_images."""
    _: KW_ONLY
    on_bad_image: Advanced[OnBadImage] = "refuse"
    """If an image is missing or cannot be decoded: refuse the data set, or skip the image and count it."""


@dataclass(frozen=True)
class LayerwiseRatesConfig(Config):
    """Learning rates of the trained backbone stages."""

    _: KW_ONLY
    backbone_lr: NotNegative[float] = 0.1
    """Learning rate of the top stage, as a fraction of the heads' rate (policy scratch: all rates equal --lr)."""
    layer_decay: Advanced[NotNegative[float]] = 0.8
    """Learning rate of each stage, as a fraction of that of the stage above it."""


@dataclass(frozen=True)
class OptimConfig(Config):
    """How a loss is minimised."""

    _: KW_ONLY
    lr: Positive[float] = 3e-3
    """Learning rate of the heads."""
    epochs: AtLeastOne[int] = 30
    """Passes over the training images, divided among the policy's phases."""
    batch_size: NotNegative[int] = 64
    """Images per optimizer step, summed over all processes (0: all images in one step, as lbfgs needs)."""
    weight_decay: NotNegative[float] = 1e-2
    """Weight decay of weights, not of biases and norms: decoupled for adamw, L2 for the other named optimizers."""
    momentum: Advanced[Fraction[float]] = 0.9
    """Momentum of sgd, nesterov and those optimizers of timm that have it (0: plain gradient descent)."""
    clip: Advanced[NotNegative[float]] = 1.0
    """Largest gradient norm; larger gradients are scaled down (0: no limit). Not for lbfgs."""
    calibrate: bool = True
    """Divide each head's logits by a temperature, so that probabilities are as high as the accuracy: on the validation
    images of train, on the target of adapt as estimated without its labels. It changes no prediction."""
    augment: Augmentation = "none"
    """Random augmentation of training images. flip: mirror; crop: flip and random resized crop; colour: crop and colour
    jitter; pca: crop and AlexNet's PCA lighting; scale: flip and ResNet's scale jitter."""
    device: Device = "auto"
    """Where to compute; auto takes CUDA, then MPS, then the CPU."""
    workers: Advanced[AtLeastOne[int | None]] = None
    """Threads that decode images (default: one per core). The result does not depend on it."""


@dataclass(frozen=True)
class BackboneConfig(Config):
    """The pretrained network, and where its weights come from."""

    backbone: str = DEFAULT_BACKBONE
    """Name of the backbone, as its provider writes it: tf_efficientnet_lite0, resnet50.a1_in1k, mobilenetv2_100,
    torchvision:squeezenet1_1; or of several, joined by + (their features are concatenated). The bundled glyphnet is for
    trials on digits. `transfer backbones '*'` lists all."""
    weights: Path | None = None
    """Weights file (default: looked up in $TRANSFER_WEIGHTS, then among the bundled ones, then in installed packages,
    then on the hub)."""
    random_init: Advanced[bool] = False
    """Start from random weights instead of pretrained ones."""
    image_size: Pixels[int | None] = None
    """Side of the input images in pixels (default: as in pretraining); a larger one shows the whole image."""
    crop: Literal["default", "border"] = "default"
    """default: the backbone's own resize and crop, which cuts off what lies at the edge; border: pad the whole image to
    a square instead."""
    engine: Advanced[Engine] = "auto"
    """What runs the frozen layers; auto takes onnxruntime on a CPU, and torch for small images and on a GPU. Where an
    engine fails, torch takes over, and the log says so. openvino needs pip install 'transfer-toolkit[openvino]'.
    compile is torch.compile, on a GPU with CUDA graphs: it starts in seconds, and is no faster on a CPU. int8 computes
    with 8-bit integers, calibrated on training images: faster, with other features. A run prints what that costs."""


@dataclass(frozen=True)
class ViewConfig(Config):
    """Test-time augmentation: the prediction is the mean of the probabilities over several views of an image."""

    test_crops: Advanced[Literal[1, 10]] = 1
    """Crops of each test image: the whole image, or the corners and the centre, each also mirrored."""
    test_sizes: Advanced[Pixels[CommaInts]] = ()
    """Sides in pixels at which each test image is evaluated, such as 224,256,384 (default: the backbone's)."""

    @property
    def several(self) -> bool:
        """Whether there is more than the plain view."""
        return self.test_crops > 1 or bool(self.test_sizes)


@dataclass(frozen=True)
class CacheConfig(Config):
    """The disk cache of frozen features, in $TRANSFER_CACHE or the system's cache folder."""

    cache: bool = True
    """Compute the frozen layers' output once and cache it on disk; --no-cache computes it in each epoch, with the same
    result."""
    cut_precision: Advanced[Literal["float16", "float32"]] = "float16"
    """Precision of activations between frozen and trained stages, cached or not. Pooled features are float32."""
    views: Advanced[NotNegative[int]] = 0
    """With --augment: sample this many augmented views of each image once and cache them (0: new views in each epoch,
    none cached)."""
    cache_gb: Advanced[Positive[float]] = 20.0
    """Largest size of the whole cache in GB; the entries that were used least recently are removed first."""


@dataclass(frozen=True)
class RunConfig(Config):
    """Where the results are written, and the random seed."""

    out: Path | None = None
    """Run folder for config.json, result.json, metrics.jsonl and model.safetensors; none: nothing is saved (default:
    runs/<data>-<backbone>-<policy>, -2 and so on beside an existing one; in Python: nothing is saved)."""
    overwrite: bool = False
    """Replace an existing run folder."""
    resume: bool = False
    """Resume the run in --out where it stopped, with bit-identical results; start it if there is none. Without --out:
    resume the newest unfinished run with the same options."""
    checkpoint_minutes: Advanced[NotNegative[float]] = 10.0
    """Longest time in minutes between two saved training states, besides those at the ends of epochs."""
    seed: NotNegative[int] = 0
    """Random seed."""
    seeds: NotNegative[CommaInts] = ()
    """Run with several seeds, such as 0,1,2, and report the mean, the standard deviation and each result."""
    report: Advanced[bool] = True
    """Write the page report.html, and its data exhibits.json, into the run folder."""
    tensorboard: Advanced[bool] = False
    """Also write TensorBoard event files into the run folder (pip install 'transfer-toolkit[tensorboard]')."""
    plugin: tyro.conf.Fixed[tuple[str, ...]] = ()
    """Record of the plugins that the command line loaded; in Python, import them before the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and not self.out:
            raise TransferError("--resume needs the folder of the run: add --out FOLDER")
        if self.resume and self.overwrite:
            raise TransferError("--resume continues a run and --overwrite replaces it: give only one of them")
        if self.tensorboard and not self.out:
            raise TransferError("--tensorboard writes into the run folder: add --out FOLDER")
