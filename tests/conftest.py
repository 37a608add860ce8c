"""A tiny set of images that can be learned, and small real backbones with random weights.

torch is imported inside the fixtures, so that tests without it start at once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from schedule import pytest_xdist_make_scheduler  # noqa: F401

from transfer.config.adapt import AdaptConfig, MethodConfig, ShiftConfig, StepsConfig
from transfer.config.train import (
    BackboneConfig,
    CacheConfig,
    DataConfig,
    HeadConfig,
    LearnConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from transfer.data.table import ImageTable, make_softmax_target

# Tests run beside each other, a core for each: read once, when torch loads, also by the commands that they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more of the machine than of the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

OBJECTS = {"blue": (40, 60, 210), "green": (50, 200, 60), "red": (210, 50, 40)}
DOMAINS = ("plain", "striped")
EACH = 8


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test that takes a `device` run on the CPU, and also on a GPU where there is one."""
    if "device" in metafunc.fixturenames:
        import torch

        metafunc.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let the tests have a cache of their own, commands that they run included."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TRANSFER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    """48 PNGs of 32 x 32: the object is the colour; one domain is plain, the other dark and striped."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    paths, objects, domains = [], [], []
    for domain in DOMAINS:
        for name, colour in OBJECTS.items():
            for i in range(EACH):
                pixels = np.full((32, 32, 3), colour, dtype=float)
                if domain == "striped":
                    pixels *= 0.5
                    pixels[:, (np.arange(32) // 4) % 2 == 0] += 60
                pixels += rng.normal(0, 12, pixels.shape)
                file = root / domain / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
                paths.append(str(file))
                objects.append(name)
                domains.append(domain)
    empty = np.full(len(paths), "")
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(domains)}
    return ImageTable(np.array(paths), targets, empty, empty, "tiny")


@pytest.fixture(scope="session")
def pixels(images: ImageTable) -> np.ndarray:
    """(48, 32, 32, 3) uint8."""
    return np.stack([np.asarray(Image.open(path)) for path in images.paths])


@pytest.fixture(scope="session")
def folder(images: ImageTable) -> Path:
    """domain/class/*.png."""
    return Path(str(images.paths[0])).parents[2]


@pytest.fixture(scope="session")
def digests(images: ImageTable) -> np.ndarray:
    """The sha256 of each image's bytes."""
    return np.array([hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in images.paths])


@pytest.fixture
def data(images: ImageTable, digests: np.ndarray) -> Any:
    """Of each 8 images of a cell: 4 to learn from, 2 to validate on; the other 2 are for tests."""
    from transfer.training.epoch import TrainingData

    place = np.arange(len(images)) % EACH
    return TrainingData(images, digests, np.flatnonzero(place < 4), np.flatnonzero((place >= 4) & (place < 6)))


@pytest.fixture(scope="session")
def small() -> Callable[..., Any]:
    """Build a real backbone with random weights, for images of `size` pixels."""
    import torch

    from transfer import backbones

    torch.set_num_threads(1)

    def build(name: str = "test_resnet", size: int = 32, seed: int = 0) -> Any:
        backbone = backbones.load(name, random_init=True, seed=seed)
        backbone.preprocessing = replace(backbone.preprocessing, input_size=(3, size, size), crop_pct=1.0)
        return backbone

    return build


@pytest.fixture(scope="session")
def weights_store(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., Any]) -> Path:
    """Random weights of a small backbone, for images of 32 pixels, as a store holds them."""
    from safetensors.torch import save_file

    root, backbone = tmp_path_factory.mktemp("store"), small()
    save_file(backbone.network.state_dict(), root / f"{backbone.name}.safetensors")
    (root / f"{backbone.name}.json").write_text(json.dumps(backbone.preprocessing.to_dict()))
    return root


@pytest.fixture
def taught(small: Callable[..., Any], images: ImageTable) -> Callable[..., Any]:
    """Build a model for the tiny set, and its plan under a policy."""
    import torch

    from transfer import freeze
    from transfer.heads import HeadSpec
    from transfer.heads.heads import Heads
    from transfer.model import TransferModel

    def build(
        policy: str = "linear_probe",
        name: str = "test_resnet",
        *,
        seed: int = 0,
        compose: str = "dual",
        hidden: tuple[int, ...] = (),
        heads: tuple[str, ...] = ("object", "domain"),
        **options: Any,
    ) -> Any:
        backbone = freeze.reshape_backbone(small(name, seed=seed), freeze.FreezePolicy.parse(policy))
        specs = [HeadSpec(head, "softmax", images.targets[head].classes) for head in heads]
        torch.manual_seed(seed)
        model = TransferModel(backbone, Heads(specs, backbone.width, compose=compose, hidden=hidden))
        return model, freeze.plan(policy, backbone, **options)

    return build


@pytest.fixture(scope="session")
def scarce() -> Callable[[pytest.MonkeyPatch, int], None]:
    """Return a function that lets memory suffice for so many images at a time in training."""
    import torch

    from transfer.model import TransferModel

    def limit(patch: pytest.MonkeyPatch, most: int) -> None:
        features = TransferModel.features

        def scarce(self: TransferModel, activation: torch.Tensor) -> torch.Tensor:
            if self.training and len(activation) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return features(self, activation)

        patch.setattr(TransferModel, "features", scarce)

    return limit


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Take from root, for as long as a test lasts, what lets it read and write files whatever their modes say."""
    if not hasattr(os, "geteuid") or os.geteuid():
        yield
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if not hasattr(libc, "capset") or libc.capget(header, sets):
        pytest.skip("root may read and write anything here")
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, sets):
        pytest.skip("root may read and write anything here")
    yield
    sets[0] = before
    libc.capset(header, sets)


@pytest.fixture
def config(folder: Path, weights_store: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    """Return a function that makes a short training run's config; a keyword sets the field of its name."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))

    def make(**settings: Any) -> TrainConfig:
        defaults = {
            "data": str(folder),
            "backbone": "test_resnet",
            "epochs": 3,
            "batch_size": 8,
            "device": "cpu",
            "workers": 2,
        }
        kinds = (DataConfig, BackboneConfig, HeadConfig, PolicyConfig, LearnConfig, RunConfig, CacheConfig)
        return fill(TrainConfig, kinds, defaults | settings)

    return make


def fill(whole: type, kinds: tuple[type, ...], settings: dict[str, Any]) -> Any:
    """Return a config whose parts of `kinds` each take the settings that they have."""
    parts = [
        kind(**{key: settings.pop(key) for key in list(settings) if key in kind.__dataclass_fields__})  # type: ignore[attr-defined]
        for kind in kinds
    ]
    assert not settings, f"no such setting: {settings}"
    return whole(*parts)


@pytest.fixture
def adapt_config(
    images: ImageTable, weights_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AdaptConfig]:
    """Return a function that makes the config of a short adaptation, plain -> striped; a keyword sets a field."""
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(weights_store))

    def make(**settings: Any) -> AdaptConfig:
        defaults = {
            "data": str(Path(str(images.paths[0])).parents[2]),
            "source": ("plain",),
            "target": "striped",
            "method": ("source_only",),
            "backbone": "test_resnet",
            "bottleneck": 16,
            "epochs": 2,
            "steps": 3,
            "batch_size": 12,
            "device": "cpu",
            "workers": 1,
        }
        kinds = (ShiftConfig, MethodConfig, BackboneConfig, StepsConfig, RunConfig, CacheConfig)
        return fill(AdaptConfig, kinds, defaults | settings)

    return make


@pytest.fixture(scope="session")
def tiny(images: ImageTable) -> Any:
    """The tiny set with its files inspected."""
    from transfer.data.duplicates import inspect_files
    from transfer.training.setup import Images

    return Images(images, inspect_files(images))


@pytest.fixture(scope="session")
def three(tiny: Any) -> Any:
    """The same with every third plain image in a domain ``dim`` of its own."""
    from dataclasses import replace

    import numpy as np

    from transfer.data.table import make_softmax_target
    from transfer.training.setup import Images

    table, third = tiny.table, np.arange(len(tiny.table)) % 3 == 0
    names = np.array(table.domains)[table.domain]
    domain = make_softmax_target(list(np.where(third & (names == "plain"), "dim", names)))
    return Images(replace(table, targets=table.targets | {"domain": domain}), tiny.inspection)
