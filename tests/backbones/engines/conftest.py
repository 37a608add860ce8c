from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import compiled
from transfer.backbones.engines.graph import export_stages


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a test a cache folder of its own, and forget what earlier tests found out."""
    monkeypatch.setenv("TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "_verdicts", {})
    return tmp_path / "cache" / "engines"


@pytest.fixture
def with_statistics() -> Callable[[Backbone], Backbone]:
    """Return a function that gives every BatchNorm what training would: no identity."""

    def set_statistics(backbone: Backbone) -> Backbone:
        generator = torch.Generator().manual_seed(1)
        for module in backbone.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
        return backbone.eval()

    return set_statistics


@pytest.fixture
def check_rows(small, with_statistics):
    """A check of an engine: it computes what torch does, the same on any number of threads."""

    def check(engine_class):
        backbone = with_statistics(small("mobilenetv3_small_050", 64))
        images = torch.randn(12, 3, 64, 64)
        cut = len(backbone.stages)
        with torch.no_grad():
            expected = backbone.trunk(images, cut).numpy()
        graph, _ = export_stages(backbone, cut, 0, images[:1])
        found = []
        for threads in (1, 2, 5):
            engine = engine_class(graph, threads)
            with ThreadPoolExecutor(threads) as pool:
                found.append(np.concatenate(list(pool.map(engine, [image[None].numpy() for image in images]))))
        assert np.abs(found[0] - expected).max() <= 1e-5 * np.abs(expected).max()
        assert all(np.array_equal(found[0], other) for other in found)

    return check


@pytest.fixture
def check_output(small):
    """A check of an engine: an output outlives the next call."""

    def check(engine_class):
        graph, _ = export_stages(small(), 3, 0, torch.randn(1, 3, 32, 32))
        engine = engine_class(graph, 1)
        first = engine(np.ones((1, 3, 32, 32), np.float32))
        held = first.copy()
        engine(np.zeros((1, 3, 32, 32), np.float32))
        assert np.array_equal(first, held)

    return check
