"""LiteRT, formerly TensorFlow Lite: a .tflite file for phones, with the description in an archive at its end."""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.formats.portable import ExportSource, PortableModel, PreparedExport, select_predictions
from transfer.formats.record import dump_description
from transfer.runtime.files import atomic_write

DESCRIPTION = "transfer.json"  # its name in the archive
# No extra can say this: xdsl, of litert-torch 0.10, asks for an older typing-extensions than tyro. Newer ones work.
INSTALL = "pip install litert-torch torchvision && pip install -U typing-extensions"


class _ChannelsLast(nn.Module):
    """Takes images as phones hold them: uint8 (1, H, W, 3)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.inner(images.permute(0, 3, 1, 2))


def to_litert(source: ExportSource) -> PreparedExport:
    """Return the run as a LiteRT model from ``images``, one image as uint8 (1, H, W, 3), to each output by its name.

    The description is ``transfer.json`` in a ZIP archive at the end of the file, which LiteRT does not read.

    Raises
    ------
    TransferError
        A package is not installed, or litert-torch cannot convert the network.
    """
    about = source.about
    portable = PortableModel(source.models, about.get("prediction_sets", {}).get("least_probability"), source.unknown)
    with _silence():
        content = _describe(_convert(portable, source.images[:1], about["backbone"]), about)
        predictions = predict_litert(content, source.images)

    def write(out: Path) -> list[Path]:
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
        return [out]

    return PreparedExport(write, predictions)


def predict_litert(content: bytes, images: Tensor) -> dict[str, np.ndarray]:
    """Return the probabilities or values by head of a LiteRT model for uint8 `images` (N, 3, H, W), one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content).get_signature_runner()
    each = [run(images=image.permute(1, 2, 0)[None].numpy()) for image in images]
    return select_predictions({name: torch.from_numpy(np.concatenate([out[name] for out in each])) for name in each[0]})


def _convert(portable: nn.Module, images: Tensor, backbone: str) -> bytes:
    """Return the .tflite file of a portable model, traced on one of `images` (1, 3, H, W)."""
    try:
        import litert_torch
        from ai_edge_litert.interpreter import Interpreter  # noqa: F401
    except ImportError as error:
        raise TransferError(f"--format litert needs litert-torch ({error}): {INSTALL}") from error
    model = _ChannelsLast(portable).eval()
    try:
        converted = litert_torch.convert(model, sample_kwargs={"images": images.permute(0, 2, 3, 1).contiguous()})
    except Exception as error:  # the converter raises errors of torch, MLIR and its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TransferError(
            f"--format litert: litert-torch cannot convert {backbone} ({reason}); phones run --format onnx too"
        ) from error
    return converted.model_content()


def _describe(content: bytes, about: dict[str, Any]) -> bytes:
    """Return a .tflite file with `about`, in the layout of this format, in an archive at its end."""
    _, height, width = about["input"]["shape"][1:]
    about = {**about, "input": {**about["input"], "shape": [1, height, width, 3]}}
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(DESCRIPTION), dump_description(about, indent=1))
    return file.getvalue()


@contextmanager
def _silence() -> Iterator[None]:
    """Send standard output and standard error nowhere, also those of C++, where the converter logs each step."""
    with open(os.devnull, "w") as nowhere, ExitStack() as stack:
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        before = os.dup(2)
        stack.callback(os.close, before)
        stack.callback(os.dup2, before, 2)
        os.dup2(nowhere.fileno(), 2)
        yield
