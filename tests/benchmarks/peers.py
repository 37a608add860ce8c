"""Images per second of feature extraction, decoding included: ours, and the loops of other libraries, in turns.

python tests/benchmarks/peers.py [--backbone B] [--images N] [--rounds N] [--engine E]

All sides read the same files of Office-31, in the same order, with the same weights, and return pooled features. Each
other library prepares images by its own transforms and runs its own loop, in batches of 64, with all cores: timm
(`create_transform`, DataLoader, `forward_features`, pooling), torchvision (`transforms.v2`, DataLoader), fastai
(`get_preds`) and lightly (`LightlyDataset`, DataLoader). Those that are not installed are left out and named. Of 0 and
2 loading processes each takes what is faster in a first round, which is not counted; ours has threads.

Ours is measured three times: its default engine, its torch path, and with every row cached. Each engine is compiled
before. "same as timm" is the median cosine of the features of an image with timm's. Ratios are those of each round, as
seconds on the clock and of processor, of this process and of those that load images.
"""

import hashlib
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import baseline
import machine
import numpy as np
import pipeline
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from transfer.data.sets.load import load_table
from transfer.disk_cache import DiskCache
from transfer.feature_cache import TrunkCache
from transfer.runtime import distributed

BATCH = 64
CORES = distributed.count_cores_per_process()
Side = Callable[[], np.ndarray]


class Files(Dataset):
    """Images as a transform returns them, each with a label that nobody needs."""

    def __init__(self, paths: list[str], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), 0


def run_loop(dataset: Dataset, forward: Callable[[Tensor], Tensor], workers: int) -> np.ndarray:
    """Return the features of all images by a DataLoader and a loop."""
    batches = DataLoader(dataset, BATCH, num_workers=workers)
    with torch.inference_mode():
        return np.concatenate([forward(images).numpy() for images, *_ in batches])


def make_ours(name: str, paths: np.ndarray, engine: str, folder: Path | None = None) -> Side:
    """Return our trunk with `engine`, into an empty cache, or with the one in `folder`."""
    model = pipeline.load_frozen_model(name, engine=engine)
    digests = np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths])

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as empty:
            cache = TrunkCache(disk_cache=DiskCache(folder or Path(empty)))
            batches = cache.feed(model, paths, digests, batch_size=BATCH).batches(np.arange(len(paths)))
            return np.concatenate([features.numpy() for _, features in batches])

    return run


def make_timm(network: nn.Module, paths: list[str], workers: int) -> Side:
    """Return timm's way: its data config and transform, `forward_features`, then pooling."""
    dataset = Files(paths, timm.data.create_transform(**timm.data.resolve_model_data_config(network)))

    def forward(images: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(images), pre_logits=True)

    return lambda: run_loop(dataset, forward, workers)


def make_torchvision(network: nn.Module, paths: list[str], workers: int) -> Side:
    """Return torchvision's way: its own mobilenet_v2 with the same tensors, its transforms, and its average pooling."""
    import torchvision
    from torchvision.transforms import v2

    own = torchvision.models.mobilenet_v2(weights=None)
    tensors = list(network.state_dict().values())  # without a classifier; same order, other names
    names = [name for name in own.state_dict() if not name.startswith("classifier")]
    own.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    own.classifier = nn.Identity()
    own.eval().requires_grad_(False)
    prepare = [v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    prepare.append(v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return lambda: run_loop(Files(paths, v2.Compose(prepare)), own, workers)


def make_fastai(network: nn.Module, paths: list[str], workers: int) -> Side:
    """Return fastai's way: a DataBlock with its resize and normalisation, and `get_preds` of a Learner."""
    from fastai.vision import all as fastai

    resize, crop = fastai.Resize(256), fastai.CropPad(224)
    crop.order = resize.order + 1  # by itself it comes first
    loaders = fastai.ImageDataLoaders.from_lists(
        Path("/"), paths, [0] * len(paths), valid_pct=0, item_tfms=[resize, crop], bs=BATCH, num_workers=workers,
        batch_tfms=fastai.Normalize.from_stats(*fastai.imagenet_stats, cuda=False), y_block=fastai.RegressionBlock(),
        device=torch.device("cpu"),
    )  # fmt: skip
    learner = fastai.Learner(loaders, network, loss_func=nn.MSELoss())

    def run() -> np.ndarray:
        with learner.no_bar(), learner.no_logging():
            batches = loaders.test_dl(paths, num_workers=workers, bs=BATCH)
            return learner.get_preds(dl=batches)[0].numpy()

    return run


def make_lightly(network: nn.Module, paths: list[str], workers: int) -> Side:
    """Return lightly's way: its LightlyDataset in a DataLoader, with transforms of torchvision as in its guides."""
    from lightly.data import LightlyDataset
    from torchvision import transforms

    prepare = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    prepare.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    dataset = LightlyDataset.from_torch_dataset(Files(paths, lambda image: image), transforms.Compose(prepare))
    return lambda: run_loop(dataset, network, workers)


PEERS: dict[str, Callable[[nn.Module, list[str], int], Side]] = {
    "timm": make_timm,
    "torchvision": make_torchvision,
    "fastai": make_fastai,
    "lightly": make_lightly,
}


def choose_workers(make: Callable[[int], Side]) -> tuple[Side, int]:
    """Return the side with 0 or 2 loading processes, whichever is faster."""
    sides = {workers: make(workers) for workers in (0, 2)}
    seconds = {workers: pipeline.time_call(side) for workers, side in sides.items()}
    best = min(seconds, key=seconds.__getitem__)
    return sides[best], best


def compare(features: np.ndarray, other: np.ndarray) -> float:
    """Return the median cosine between the two features of an image."""
    products = (features * other).sum(1)
    return float(np.median(products / np.linalg.norm(features, axis=1) / np.linalg.norm(other, axis=1)))


def main() -> None:
    """Print the table."""
    options = pipeline.parse_arguments(__doc__)
    name = options.backbone
    network = baseline.load_network(name, Path(os.environ["TRANSFER_WEIGHTS"]))
    table = load_table("office31")
    paths = [str(path) for path in table.paths[np.random.default_rng(0).permutation(len(table))[: options.images]]]
    torch.set_num_threads(CORES)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"ours": make_ours(name, np.array(paths), options.engine)}
        sides["ours, torch"] = make_ours(name, np.array(paths), "torch")
        sides["ours, cached"] = make_ours(name, np.array(paths), options.engine, Path(folder))
        label = {side: side for side in sides}
        for peer, make in PEERS.items():
            if importlib.util.find_spec(peer) is None or (peer == "torchvision" and name != "mobilenetv2_100"):
                print(f"{peer}: not installed, or has no such network")
                continue
            sides[peer], workers = choose_workers(lambda workers, make=make: make(network, paths, workers))
            label[peer] = f"{peer} {version(peer)}, {workers} processes"
        features = {side: run() for side, run in sides.items()}
        rounds = [{side: pipeline.time_both(run) for side, run in sides.items()} for _ in range(options.rounds)]
    print(machine.describe(), f"\n{name}, n = {len(paths)} images of Office-31, {options.rounds} rounds", sep="")
    rows = [["side", "images/s", "times as slow as ours", "least", "most", "in processor time", "same as timm"]]
    for side in sides:
        clock, processor = ([found[side][k] / found["ours"][k] for found in rounds] for k in (0, 1))
        rate = len(paths) / statistics.median(found[side][0] for found in rounds)
        figures = [statistics.median(clock), min(clock), max(clock), statistics.median(processor)]
        same = compare(features[side], features["timm"])
        rows.append([label[side], f"{rate:.0f}", *(f"{value:.2f}" for value in figures), f"{same:.4f}"])
    print(machine.format_table(rows))


if __name__ == "__main__":
    main()
