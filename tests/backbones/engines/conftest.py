from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines import compiled


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
