"""torch.export: weights and computation as a .pt2 archive, for PyTorch without this library."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.evaluation.uncertainty.unknown import UnknownScore
from transfer.formats.portable import PortableModel, PreparedExport, select_predictions
from transfer.runs.checkpoint import Models
from transfer.runtime.files import atomic_write


def to_torch_export(
    models: Models, about: dict[str, Any], images: Tensor, unknown: UnknownScore | None = None
) -> PreparedExport:
    """Return `models` as one exported program from uint8 images (N, 3, H, W) to a dict of predictions."""
    portable = PortableModel(models, about.get("prediction_sets", {}).get("least_probability"), unknown)
    program = trace_program(portable, images)

    def write(out: Path) -> list[Path]:
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"transfer.json": json.dumps(about, ensure_ascii=False)})
        with atomic_write(out) as temporary:
            temporary.write_bytes(content.getvalue())
        return [out]

    with torch.no_grad():
        return PreparedExport(write, select_predictions(program.module()(images)))


def trace_program(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return `module` as a program for any number of images, traced on two of `images`."""
    batch = torch.export.Dim("batch")
    return torch.export.export(module, (images[:2],), dynamic_shapes=({0: batch},), strict=False)
