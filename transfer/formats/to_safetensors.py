"""Plain safetensors: weights under the provider's keys, linear heads, and a JSON file that describes both."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from transfer.backbones.variants import AllStagesBackbone, TruncatedBackbone
from transfer.formats.plain_heads import extract_plain_heads
from transfer.formats.portable import ExportSource, PreparedExport, find_rounded_module
from transfer.formats.record import dump_description
from transfer.model import TransferModel
from transfer.runtime.files import atomic_write, write_json


def to_safetensors(source: ExportSource) -> PreparedExport:
    """Return the run as tensors ``backbone.KEY`` and ``heads.NAME.LAYER.weight|bias``, and the JSON beside them.

    Separate networks have a prefix each: ``NAME.backbone.KEY`` and so on. There is no computation, so no predictions.
    """
    tensors: dict[str, Tensor] = {}
    networks = {}
    for part, model in source.models.items():
        prefix = f"{part}." if part else ""
        for key, tensor in model.backbone.network.state_dict().items():
            tensors[f"{prefix}backbone.{key}"] = tensor.contiguous()
        heads = extract_plain_heads(model.heads)
        for name, head in heads.items():
            for i, (weight, bias) in enumerate(head.layers):
                tensors[f"{prefix}heads.{name}.{i}.weight"] = weight.contiguous()
                tensors[f"{prefix}heads.{name}.{i}.bias"] = bias
        networks[part] = {
            "features": _features(model),
            "rounded_to_float16": find_rounded_module(model),
            "heads": {name: {"layers": len(h.layers), "activation": h.activation} for name, h in heads.items()},
        }
    described = source.about | {"networks": networks}

    def write(out: Path) -> list[Path]:
        beside = out.with_suffix(".json")
        with atomic_write(out) as temporary:
            save_file(tensors, temporary, metadata={"transfer": dump_description(described)})
        write_json(beside, described)
        return [out, beside]

    return PreparedExport(write, {})


def _features(model: TransferModel) -> list[dict[str, Any]]:
    """Return the modules whose spatially averaged outputs the heads read; ``""`` is the network itself."""
    backbone = model.backbone
    if isinstance(backbone, AllStagesBackbone):
        last = len(backbone.stages) - 1
        return [
            {"module": "" if i == last else stage.modules[-1], "stage": stage.name}
            for i, stage in enumerate(backbone.stages)
        ]
    return [{"module": backbone.stages[-1].modules[-1] if isinstance(backbone, TruncatedBackbone) else ""}]
