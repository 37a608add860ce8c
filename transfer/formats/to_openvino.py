"""OpenVINO's intermediate representation: an .xml file with the computation, a .bin file with the weights beside it."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from transfer.errors import TransferError
from transfer.formats.portable import ExportSource, PreparedExport, select_predictions
from transfer.formats.record import dump_description
from transfer.formats.to_onnx import build_onnx
from transfer.runtime.files import atomic_write


def to_openvino(source: ExportSource) -> PreparedExport:
    """Return the run as an OpenVINO model with the inputs and outputs of the ONNX export, float32.

    The description is in the .xml file, under ``rt_info``: ``model.get_rt_info("transfer")`` returns it as JSON.

    Raises
    ------
    TransferError
        A package is not installed, or `out` is not an .xml file.
    """
    try:
        import openvino
    except ImportError as error:
        raise TransferError(
            f"--format openvino needs openvino ({error}): pip install 'transfer-toolkit[openvino]'"
        ) from error
    model = openvino.Core().read_model(build_onnx(source, "openvino"))
    model.set_rt_info(dump_description(source.about), "transfer")
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: Any = compiled({"images": source.images.numpy()})
    outputs = {port.any_name: torch.from_numpy(values.copy()) for port, values in found.items()}

    def write(out: Path) -> list[Path]:
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(model, Path(folder, "model.xml"), compress_to_fp16=False)
            for suffix in (".bin", ".xml"):  # the .xml last, which names no file: both have one name
                with atomic_write(out.with_suffix(suffix)) as temporary:
                    temporary.write_bytes(Path(folder, f"model{suffix}").read_bytes())
        return [out, out.with_suffix(".bin")]

    return PreparedExport(write, select_predictions(outputs))
