"""ONNX: one file for every runtime, with classes and preprocessing in its metadata."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.evaluation.uncertainty.unknown import UnknownScore
from transfer.formats.portable import PortableModel, PreparedExport, select_predictions
from transfer.formats.to_torch_export import trace_program
from transfer.runs.checkpoint import Models
from transfer.runtime.files import atomic_write

BATCH_AXIS = "batch"


class _OutputList(nn.Module):
    """Returns the outputs as a tuple, since ONNX identifies them by position."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.inner(images).values())


def to_onnx(
    models: Models, about: dict[str, Any], images: Tensor, unknown: UnknownScore | None = None
) -> PreparedExport:
    """Return `models` as an ONNX model from ``images``, uint8 (batch, 3, H, W), to each output by its name.

    A TransferError says that onnx, onnxscript or onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TransferError(
            f"--format onnx needs onnx, onnxscript and onnxruntime ({error}): pip install 'transfer-toolkit[export]'"
        ) from error
    portable = PortableModel(models, about.get("prediction_sets", {}).get("least_probability"), unknown)
    with torch.no_grad():
        names = list(portable(images[:1]))
    program = trace_program(_OutputList(portable), images)
    exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["images"], output_names=names)
    assert exported is not None
    model = exported.model_proto
    _name_batch_axis(model.graph)
    classes = {name: head["classes"] for name, head in about["heads"].items()}
    for key, value in (("transfer", about), ("classes", classes), ("preprocessing", about["preprocessing"])):
        model.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    model.producer_name, model.producer_version = about["made_by"].split()
    onnx.checker.check_model(model)
    content = model.SerializeToString()

    def write(out: Path) -> list[Path]:
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
        return [out]

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = session.run(names, {"images": images.numpy()})
    return PreparedExport(write, select_predictions(dict(zip(names, map(torch.from_numpy, outputs), strict=True))))


def _name_batch_axis(graph: Any) -> None:
    """Name the first axis ``batch`` wherever it occurs; the exporter gives it a number."""
    numbered = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == numbered:
                axis.dim_param = BATCH_AXIS
