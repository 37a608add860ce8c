"""Trained models on disk: one safetensors file that predicts anywhere, with no hub and no config beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from transfer import backbones
from transfer.backbones.variants import EveryStage, Truncated
from transfer.config import HeadConfig
from transfer.data.images import Preprocessing
from transfer.errors import TransferError
from transfer.files import whole
from transfer.heads import Heads, HeadSpec
from transfer.model import TransferModel
from transfer.plain import from_dict, to_dict

FORMAT = "transfer 1"
Models = dict[str, TransferModel]
"""A run's networks by part: one called ``""`` for dual and joint heads, one per head for separate ones."""


def build_heads(specs: list[HeadSpec], width: int, config: HeadConfig) -> Heads:
    """Return heads for `specs` as `config` says."""
    return Heads(
        specs,
        width,
        compose="joint" if config.heads == "joint" else "dual",
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout or 0.0,
        init=config.head_init,
        dropout_kind=config.dropout_kind,
        drop_connect=config.drop_connect,
    )


def save(path: Path, models: Mapping[str, TransferModel], config: HeadConfig) -> None:
    """Write `models` to `path` as safetensors; the header carries all that is needed to rebuild them."""
    tensors: dict[str, Tensor] = {}
    parts = {}
    for part, model in models.items():
        for name, tensor in model.state_dict().items():
            tensors[f"{part}/{name}"] = tensor.detach().cpu().contiguous()
        parts[part] = {
            "cut": model.cut,
            "cut_precision": model.cut_precision,
            "specs": [asdict(spec) for spec in model.heads.specs.values()],
        }
    backbone = next(iter(models.values())).backbone
    header = {
        "format": FORMAT,
        "backbone": backbone.name,
        "weights": _without_folder(backbone.weights),
        "dropped": len(backbone.dropped),
        "every_stage": isinstance(backbone, EveryStage),
        "preprocessing": backbone.preprocessing.to_dict(),
        "heads": to_dict(config),
        "parts": parts,
    }
    with whole(path) as temporary:
        save_file(tensors, temporary, metadata={"transfer": json.dumps(header)})


def _without_folder(weights: str) -> str:
    """Return where weights came from, of a file the name alone: a model that travels tells nothing of its machine."""
    kind, _, place = weights.partition(" ")
    return f"{kind} {Path(place).name}" if kind in ("file", "store") else weights


def load(path: Path, device: torch.device | str = "cpu") -> Models:
    """Return the models saved in the run folder or file `path`, in eval mode.

    Raises
    ------
    TransferError
        No such file, not one of ours, or damaged.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise TransferError(f"no run at {path}: expected {file.name} there (a finished `transfer train --out {path}`)")
    try:
        with safe_open(file, "pt") as opened:
            header: dict[str, Any] = json.loads((opened.metadata() or {}).get("transfer", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise TransferError(f"{file} is not a readable safetensors file ({error}): train the run again") from error
    if header.get("format") != FORMAT:
        raise TransferError(f"{file} is no model of this tool: expected the output of `transfer train`")
    models: Models = {}
    for part, saved in header["parts"].items():
        backbone = backbones.load(header["backbone"], random_init=True)
        backbone.preprocessing = Preprocessing.from_dict(header["preprocessing"])
        backbone.weights = header["weights"]
        if header.get("dropped"):
            backbone = Truncated(backbone, header["dropped"])
        elif header.get("every_stage"):
            backbone = EveryStage(backbone)
        specs = [HeadSpec(**{**spec, "classes": tuple(spec["classes"])}) for spec in saved["specs"]]
        heads = build_heads(specs, backbone.width, from_dict(HeadConfig, header["heads"]))
        model = TransferModel(backbone, heads, saved["cut"], saved.get("cut_precision", "float16"))
        state = {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(f"{part}/")}
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise TransferError(
                f"{file} does not fit {header['backbone']}: {str(error).splitlines()[-1].strip()}"
            ) from error
        models[part] = model.to(device).eval()
    return models
