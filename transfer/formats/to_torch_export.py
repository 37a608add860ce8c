"""torch.export: weights and computation as a .pt2 archive, for PyTorch without this library."""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from transfer.formats.portable import ExportSource, PortableModel, PreparedExport, select_predictions
from transfer.formats.record import dump_description
from transfer.runtime.files import atomic_write


def to_torch_export(source: ExportSource) -> PreparedExport:
    """Return the run as one exported program from uint8 images (N, 3, H, W) to a dict of predictions."""
    about = source.about
    portable = PortableModel(source.models, about.get("prediction_sets", {}).get("least_probability"), source.unknown)
    program = trace_program(portable, source.images)

    def write(out: Path) -> list[Path]:
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"transfer.json": dump_description(about)})
        with atomic_write(out) as temporary:
            temporary.write_bytes(content.getvalue())
        return [out]

    with torch.no_grad():
        return PreparedExport(write, select_predictions(program.module()(source.images)))


def trace_program(module: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Return `module` as a program for any number of images, traced on two of `images`."""
    batch = torch.export.Dim("batch")
    return torch.export.export(module, (images[:2],), dynamic_shapes=({0: batch},), strict=False)
