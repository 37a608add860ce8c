"""Plain safetensors: the provider's own key names, linear heads, and a JSON that says how they go together."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone
from transfer.formats.plain_heads import plain_heads
from transfer.formats.portable import Ready, rounded_at
from transfer.model import TransferModel
from transfer.runs.checkpoint import Models
from transfer.runtime.files import atomic_write, write_json


def to_safetensors(models: Models, about: dict[str, Any], images: Tensor) -> Ready:
    """Return `models` as tensors ``backbone.KEY`` and ``heads.NAME.LAYER.weight|bias``, and the JSON beside them.

    Separate networks have their own each, ``NAME.backbone.KEY`` and so on. There is nothing to run: no answers.
    """
    tensors: dict[str, Tensor] = {}
    networks = {}
    for part, model in models.items():
        before = f"{part}." if part else ""
        for key, tensor in model.backbone.network.state_dict().items():
            tensors[f"{before}backbone.{key}"] = tensor.contiguous()
        heads = plain_heads(model.heads)
        for name, head in heads.items():
            for i, (weight, bias) in enumerate(head.layers):
                tensors[f"{before}heads.{name}.{i}.weight"] = weight.contiguous()
                tensors[f"{before}heads.{name}.{i}.bias"] = bias
        networks[part] = {
            "features": _features(model),
            "rounded_to_float16": rounded_at(model),
            "heads": {name: {"layers": len(h.layers), "activation": h.activation} for name, h in heads.items()},
        }
    told = about | {"networks": networks}

    def write(out: Path) -> list[Path]:
        beside = out.with_suffix(".json")
        with atomic_write(out) as temporary:
            save_file(tensors, temporary, metadata={"transfer": json.dumps(told, ensure_ascii=False)})
        write_json(beside, told)
        return [out, beside]

    return Ready(write, {})


def _features(model: TransferModel) -> list[dict[str, Any]]:
    """Return of which modules the heads read what they put out, meant over places; ``""`` is the network itself."""
    backbone = model.backbone
    if isinstance(backbone, AllStagesBackbone):
        last = len(backbone.stages) - 1
        return [
            {"module": "" if i == last else stage.modules[-1], "stage": stage.name}
            for i, stage in enumerate(backbone.stages)
        ]
    return [{"module": backbone.stages[-1].modules[-1] if isinstance(backbone, TruncatedBackbone) else ""}]
