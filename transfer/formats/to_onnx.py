"""ONNX: one file for every runtime; classes and preprocessing lie in its metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.formats.portable import Portable, Ready, said
from transfer.formats.to_torch_export import exported
from transfer.runs.checkpoint import Models
from transfer.runtime.files import atomic_write

BATCH = "batch"


class _Listed(nn.Module):
    """The outputs in a row, since ONNX knows them by their place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.inner(images).values())


def to_onnx(models: Models, about: dict[str, Any], images: Tensor) -> Ready:
    """Return `models` as an ONNX model from ``images``, uint8 (batch, 3, H, W), to each output by its name.

    Raises
    ------
    TransferError
        What translates to ONNX is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TransferError(
            f"--format onnx needs onnx, onnxscript and onnxruntime ({error}): pip install 'transfer[export]'"
        ) from error
    portable = Portable(models)
    with torch.no_grad():
        names = list(portable(images[:1]))
    program = torch.onnx.export(
        exported(_Listed(portable), images), dynamo=True, verbose=False, input_names=["images"], output_names=names
    )
    assert program is not None
    model = program.model_proto
    _name_the_batch(model.graph)
    for key, value in (("transfer", about), ("classes", _classes(about)), ("preprocessing", about["preprocessing"])):
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    model.producer_name, model.producer_version = about["made_by"].split()
    onnx.checker.check_model(model)
    content = model.SerializeToString()

    def write(out: Path) -> list[Path]:
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
        return [out]

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    told = session.run(names, {"images": images.numpy()})
    return Ready(write, said(dict(zip(names, map(torch.from_numpy, told), strict=True))))


def _name_the_batch(graph: Any) -> None:
    """Let the first axis be called ``batch`` wherever it occurs, and not what the exporter numbered it."""
    given = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == given:
                axis.dim_param = BATCH


def _classes(about: dict[str, Any]) -> dict[str, list[str]]:
    return {name: head["classes"] for name, head in about["heads"].items()}
