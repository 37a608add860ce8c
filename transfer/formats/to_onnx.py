"""ONNX: one file for every runtime, with classes and preprocessing in its metadata."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.errors import TransferError
from transfer.formats.portable import ExportSource, PortableModel, PreparedExport, select_predictions
from transfer.formats.record import dump_description
from transfer.formats.to_torch_export import trace_program
from transfer.runtime.files import atomic_write

BATCH_AXIS = "batch"


class _OutputList(nn.Module):
    """Returns the outputs as a tuple, since ONNX identifies them by position."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.inner(images).values())


def to_onnx(source: ExportSource) -> PreparedExport:
    """Return the run as an ONNX model from ``images``, uint8 (batch, 3, H, W), to each output by its name.

    A TransferError says that onnx, onnxscript or onnxruntime is not installed.
    """
    content = build_onnx(source, "onnx")

    def write(out: Path) -> list[Path]:
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
        return [out]

    return PreparedExport(write, predict_onnx(content, source.images))


def build_onnx(source: ExportSource, format: str) -> bytes:
    """Return the content of the ONNX file of a run, for `format`, which is named if a package is not installed."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TransferError(
            f"--format {format} needs onnx, onnxscript and onnxruntime ({error}): "
            "pip install 'transfer-toolkit[export]'"
        ) from error
    about = source.about
    portable = PortableModel(source.models, about.get("prediction_sets", {}).get("least_probability"), source.unknown)
    with torch.no_grad():
        names = list(portable(source.images[:1]))
    program = trace_program(_OutputList(portable), source.images)
    exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["images"], output_names=names)
    assert exported is not None
    model = exported.model_proto
    _name_batch_axis(model.graph)
    describe_onnx(model, about)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def describe_onnx(model: Any, about: dict[str, Any]) -> None:
    """Write `about` into the metadata of the ONNX `model`, in place of any other."""
    del model.metadata_props[:]
    classes = {name: head["classes"] for name, head in about["heads"].items()}
    for key, value in (("transfer", about), ("classes", classes), ("preprocessing", about["preprocessing"])):
        model.metadata_props.add(key=key, value=dump_description(value))
    model.producer_name, model.producer_version = about["made_by"].split()


def open_onnx(content: bytes, *, threads: int = 0) -> Any:
    """Return an onnxruntime session of a model on the CPU, with this number of `threads` (0: one a core)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def predict_onnx(content: bytes, images: Tensor) -> dict[str, np.ndarray]:
    """Return the probabilities or values by head of an ONNX model for uint8 `images` (N, 3, H, W)."""
    return run_onnx(open_onnx(content), images.numpy())


def run_onnx(session: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the probabilities or values by head for uint8 `images` (N, 3, H, W)."""
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"images": images})
    return select_predictions(dict(zip(names, map(torch.from_numpy, outputs), strict=True)))


def _name_batch_axis(graph: Any) -> None:
    """Name the first axis ``batch`` wherever it occurs; the exporter gives it a number."""
    numbered = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == numbered:
                axis.dim_param = BATCH_AXIS
