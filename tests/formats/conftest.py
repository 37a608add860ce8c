"""Saved runs of every form, on a small backbone with random weights."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transfer.config.train import HeadConfig, TrainConfig

SHARED = Path(os.environ.get("TRANSFER_WEIGHTS", Path(__file__).parents[3] / "shared" / "weights")).parent


@pytest.fixture
def saved(taught: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Save an untrained run with heads and features scaled as after training; return its folder."""
    import torch

    from transfer.runs import checkpoint

    def save(policy: str = "linear_probe", *, separate: bool = False, heads: HeadConfig | None = None) -> Path:
        config = heads or HeadConfig(heads="separate" if separate else "dual")
        parts = {"object": ("object",), "domain": ("domain",)} if separate else {"": ("object", "domain")}
        models = {}
        for seed, (part, names) in enumerate(parts.items()):
            torch.manual_seed(seed)
            model, plan = taught(policy, seed=seed, heads=names)
            model.heads = checkpoint.build_heads(list(model.heads.specs.values()), model.backbone.width, config)
            model.freeze(plan.phases[-1])
            with torch.no_grad():
                pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
                model.eval().heads.scale_to(model.features(model.trunk(pixels)))
                for layer in model.heads.modules():
                    if isinstance(layer, torch.nn.Linear):
                        layer.bias.normal_()
            models[part] = model
        out = tmp_path / "run"
        out.mkdir(exist_ok=True)
        checkpoint.save_models(out / "model.safetensors", models, config)
        return out

    return save


@pytest.fixture(scope="session")
def noise() -> Any:
    """Three images of noise, uint8 (3, 3, 32, 32)."""
    import torch

    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(7)).to(torch.uint8)


@pytest.fixture(scope="session")
def own() -> Callable[..., dict[str, Any]]:
    """Return the predictions of a saved run itself, by head."""
    from transfer.runs import checkpoint

    def predictions(run: Path, images: Any) -> dict[str, Any]:
        models = checkpoint.load_models(run)
        return {name: values.numpy() for model in models.values() for name, values in model.predict(images).items()}

    return predictions


@pytest.fixture
def finished(config: Callable[..., TrainConfig], folder: Path, tmp_path: Path) -> Path:
    """Train a run on images of its own; return its folder."""
    from transfer.training.train import train

    shutil.copytree(folder, tmp_path / "images")
    train(config(data=str(tmp_path / "images"), out=tmp_path / "run", policy="linear_probe"))
    return tmp_path / "run"


@pytest.fixture
def shared_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let backbones be loaded with real weights; skip if there are none."""
    if not (SHARED / "weights").is_dir():
        pytest.skip("needs shared/weights beside the checkout")
    monkeypatch.setenv("TRANSFER_WEIGHTS", str(SHARED / "weights"))
