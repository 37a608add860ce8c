"""Images per second on a GPU: decoding, the frozen network in several forms, extraction into a cache, and training.

python tests/benchmarks/gpu.py [--device cuda] [--images N] [--rounds N] [--backbone NAME] [--no-compile]

Images are JPEGs cut from scikit-learn's two photographs, weights are random: nothing is downloaded. Every form of the
network gets the same images, which are on the device already; "from host" copies them there and the features back.
Compiled forms (torch.compile, on a GPU with CUDA graphs) are also compared with the plain network: the largest
difference of a feature, relative to the largest feature. Medians of the rounds, of which each measures everything once,
after a first one that sets up. Without such a device it prints one line.
"""

import argparse
import copy
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import machine
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from transfer import backbones
from transfer.backbones.trunk import Trunk
from transfer.config.train import BackboneConfig, CacheConfig, LearnConfig, PolicyConfig, TrainConfig
from transfer.data.images.batches import ImageBatches
from transfer.data.table import ImageTable, make_softmax_target
from transfer.disk_cache import DiskCache
from transfer.errors import TransferError
from transfer.evaluation.predictions import target_tensors
from transfer.feature_cache import TrunkCache
from transfer.heads import HeadSpec
from transfer.model import TransferModel
from transfer.runtime.device import pick_device
from transfer.training import optimizers
from transfer.training.epoch import EpochTrainer, TrainingData
from transfer.training.setup import new_model

BATCH = 64
HEIGHT, WIDTH = 375, 500  # of an image, as most of ImageNet's
CLASSES = 10

Forward = Callable[[Tensor], Tensor]


def write_images(folder: Path, count: int) -> ImageTable:
    """Write JPEGs into `folder`: random crops of two photographs, with random labels."""
    photographs, rng = load_sample_images().images, np.random.default_rng(0)
    paths = []
    for number in range(count):
        whole = photographs[number % 2]
        top, left = (int(rng.integers(whole.shape[axis] - size + 1)) for axis, size in ((0, HEIGHT), (1, WIDTH)))
        paths.append(str(folder / f"{number:06}.jpg"))
        Image.fromarray(whole[top : top + HEIGHT, left : left + WIDTH]).save(paths[-1], quality=90)
    labels = [str(number % CLASSES) for number in range(count)]
    empty = np.full(count, "")
    targets = {"object": make_softmax_target(labels), "domain": make_softmax_target(["one"] * count)}
    return ImageTable(np.array(paths), targets, empty, empty, "crops")


def synchronize(device: torch.device) -> None:
    """Wait for all queued work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def time_on(device: torch.device, call: Callable[[], object]) -> float:
    """Return the seconds of `call` and of all that it queued."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def build_forms(model: TransferModel, compiled: bool) -> dict[str, Forward]:
    """Return the frozen network in several forms, from uint8 images on the device to features there."""
    backbone, device = model.backbone, next(model.parameters()).device
    rows = backbones.load(backbone.name, random_init=True, image_size=backbone.preprocessing.input_size[1])
    rows.load_state_dict(backbone.state_dict())
    rows = rows.to(device).eval()
    normalise, trunk = backbone.preprocessing.normalise, model.get_trunk()

    def channels_last(images: Tensor) -> Tensor:
        return normalise(images).contiguous(memory_format=torch.channels_last)

    def in_bfloat16(network: Forward) -> Forward:
        def run(images: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16):
                return network(channels_last(images))

        return run

    forms: dict[str, Forward] = {
        "float32": lambda images: rows(normalise(images).contiguous()),
        "float32 channels_last": lambda images: backbone(channels_last(images)),
        "float32 channels_last, folded (ours)": trunk,
        "bfloat16 channels_last": in_bfloat16(backbone),
    }
    if compiled:
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        network = torch.compile(backbone.network, mode=mode)
        ours = copy.deepcopy(backbone)
        ours.engine = "compile"
        forms["float32 --engine compile (ours)"] = Trunk(ours, len(ours.stages), store=False)
        # CUDA graphs write each output to the same memory.
        forms["float32 channels_last, compiled"] = lambda images: network(channels_last(images)).clone()
        forms["bfloat16 channels_last, compiled"] = lambda images: in_bfloat16(network)(images).clone()
    return forms


class TrainingEpochs:
    """Epochs of ``--policy full`` in one precision: every step reads its images again."""

    def __init__(self, table: ImageTable, digests: np.ndarray, model_config: TrainConfig, device: torch.device) -> None:
        self.config = model_config
        spec = HeadSpec("object", classes=table.objects)
        self.model, plan = new_model(model_config, [spec], 0, device)
        self.phase = plan.phases[0]
        self.model.freeze(self.phase)
        self.optimizer = optimizers.build_optimizer(self.model, plan, model_config.learn)
        rows = np.arange(len(table))
        self.data, self.labels = TrainingData(table, digests, rows, rows[:0]), target_tensors(table, self.model)
        cache = TrunkCache(CacheConfig(cache=False))
        self.feed = cache.feed(self.model, table.paths, digests, batch_size=BATCH)

    def run(self) -> None:
        """Train for an epoch."""
        learn = self.config.learn
        EpochTrainer(self.model, self.feed, self.data, self.labels, self.optimizer, self.phase, learn).run_epoch(
            (1, 1), [0, 0, 1]
        )


def list_calls(
    options: argparse.Namespace, table: ImageTable, device: torch.device
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return what is timed, by name, and the error of each form of the network."""
    backbone = BackboneConfig(options.backbone, random_init=True, engine="torch", image_size=options.size)
    config = TrainConfig(backbone=backbone, policy=PolicyConfig("linear_probe"))
    frozen, plan = new_model(config, [HeadSpec("object", classes=table.objects)], 0, device)
    frozen.freeze(plan.phases[0])
    frozen.eval()
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in table.paths])
    decoding = ImageBatches(table.paths, frozen.backbone.preprocessing, batch_size=BATCH, pin=device.type == "cuda")
    host = [images for _, images in decoding if len(images) == min(BATCH, len(table))]
    there = [images.to(device) for images in host]

    def extract() -> None:
        with tempfile.TemporaryDirectory() as empty:
            cache = TrunkCache(disk_cache=DiskCache(Path(empty)))
            cache.feed(frozen, table.paths, digests, batch_size=BATCH).prepare(np.arange(len(table)))

    def forward_all(run: Forward) -> None:
        with torch.inference_mode():
            for images in there:
                run(images)

    forms, errors = build_forms(frozen, options.compile), {}
    with torch.inference_mode():
        expected = forms["float32"](there[0])
        for name, run in list(forms.items()):
            try:
                errors[name] = float((run(there[0]).float() - expected).abs().max() / expected.abs().max())
            except Exception as error:  # compilers fail in many ways
                print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
                del forms[name]
    trunk = frozen.get_trunk()
    calls: dict[str, Callable[[], object]] = {"decode": lambda: [None for _ in decoding]}
    calls |= {name: lambda run=run: forward_all(run) for name, run in forms.items()}
    calls["from host"] = lambda: [trunk(images).cpu() for images in host]
    calls["extraction into an empty cache"] = extract
    for precision in ("float32", "bfloat16"):
        learn = LearnConfig(precision=precision, batch_size=BATCH)
        trained = replace(config, policy=PolicyConfig("full"), learn=learn)
        calls[f"training epoch, full, {precision}"] = TrainingEpochs(table, digests, trained, device).run
    return calls, errors


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=None, help="side of the network's images in pixels")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parse_options()
    try:
        device = pick_device(options.device)
    except TransferError as error:
        print(f"nothing was measured: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:
        table = write_images(Path(folder), options.images)
        calls, errors = list_calls(options, table, device)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(options.rounds + 1):
            for name, call in calls.items():
                taken = time_on(device, call)
                if number:
                    seconds[name].append(taken)
    full = len(table) // BATCH * BATCH or len(table)  # images of full batches
    whole = ("decode", "extraction", "training")
    rates = {
        name: (len(table) if name.startswith(whole) else full) / statistics.median(each)
        for name, each in seconds.items()
    }
    print(machine.describe())
    print(f"{options.backbone} on {device}, n = {len(table)} images, {options.rounds} rounds")
    lines = [[name, f"{rate:,.0f}", f"{errors[name]:.1g}" if name in errors else ""] for name, rate in rates.items()]
    print(machine.format_table([["", "images/s", "error"], *lines]))
    slower = min(rates["decode"], rates["from host"])
    print(f"extraction: {rates['extraction into an empty cache'] / slower:.2f} of the slower of decode and from host")


if __name__ == "__main__":
    main()
