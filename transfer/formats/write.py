"""`transfer export`: a saved run in another format, its answers held against the run's own before it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.config.commands import ExportConfig
from transfer.errors import TransferError
from transfer.formats.portable import Ready
from transfer.formats.record import record
from transfer.formats.to_onnx import to_onnx
from transfer.formats.to_safetensors import to_safetensors
from transfer.formats.to_timm import to_timm
from transfer.formats.to_torch_export import to_torch_export
from transfer.runs import checkpoint

FORMATS: dict[str, tuple[Callable[[checkpoint.Models, dict[str, Any], Tensor], Ready], str]] = {
    "onnx": (to_onnx, ".onnx"),
    "torch_export": (to_torch_export, ".pt2"),
    "safetensors": (to_safetensors, ".safetensors"),
    "timm": (to_timm, "_timm"),
}
TRIED = 3  # images; another number than the exporter traces, so that the batch proves to be free
FAR = 1e-2  # between probabilities: beyond it something else was computed, not the same in another order


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    files : list of Path
    apart : float or None
        The largest difference between probabilities (or values) of the exported model and of the run, on images of
        noise; None where the format cannot be run by itself.
    how : str
        What to do with a picture before the model sees it.
    """

    files: list[Path]
    apart: float | None
    how: str

    def lines(self) -> list[str]:
        """Return what `transfer export` prints."""
        proof = [] if self.apart is None else [f"answers as the run does, to within {self.apart:.1e}"]
        return [*(f"wrote {file}" for file in self.files), *proof, f"pictures: {self.how}; uint8 RGB"]


def export(config: ExportConfig) -> Exported:
    """Export as `config` says.

    Raises
    ------
    TransferError
        No run there, a form that the format cannot have, or a path that cannot be written.
    """
    make, suffix = FORMATS[config.format]
    run = config.run if config.run.is_dir() else config.run.parent / config.run.stem
    out = config.out or Path(f"{run.absolute()}{suffix}")
    if out.is_dir() != (config.format == "timm") and out.exists():
        raise TransferError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: name another")
    models = checkpoint.load(config.run)
    size = next(iter(models.values())).backbone.preprocessing.input_size
    images = torch.randint(0, 256, (TRIED, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    wanted = {k: v.numpy() for model in models.values() for k, v in model.predict(images).items()}
    about = record(models)
    ready = make(models, about, images)
    apart = max((float(np.abs(some - wanted[name]).max()) for name, some in ready.answers.items()), default=None)
    if apart is not None and not apart <= FAR:
        raise TransferError(f"--format {config.format}: its answers are {apart:.2g} off the run's; nothing is written")
    return Exported(ready.write(out), apart, about["how"])
