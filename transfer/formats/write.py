"""`transfer export`: write a saved run in another format, after comparing its predictions with the run's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transfer.config.commands import ExportConfig
from transfer.errors import TransferError
from transfer.evaluation.uncertainty.record import Uncertainty, load_uncertainty
from transfer.evaluation.uncertainty.unknown import HEAD
from transfer.formats.portable import ExportSource, PreparedExport, find_largest_difference
from transfer.formats.record import describe_models
from transfer.formats.to_litert import to_litert
from transfer.formats.to_onnx import to_onnx
from transfer.formats.to_onnx_int8 import to_onnx_int8
from transfer.formats.to_openvino import to_openvino
from transfer.formats.to_safetensors import to_safetensors
from transfer.formats.to_timm import to_timm
from transfer.formats.to_torch_export import to_torch_export
from transfer.formats.to_web import to_web
from transfer.runs import checkpoint

_LOAD_ONNX = "import onnxruntime; print([o.name for o in onnxruntime.InferenceSession({out!r}).get_outputs()])"
FORMATS: dict[str, tuple[Callable[[ExportSource], PreparedExport], str, str]] = {
    "onnx": (to_onnx, ".onnx", _LOAD_ONNX),
    "onnx-int8": (to_onnx_int8, "-int8.onnx", _LOAD_ONNX),
    "openvino": (
        to_openvino,
        ".xml",
        "import openvino; print([o.any_name for o in openvino.Core().read_model({out!r}).outputs])",
    ),
    "litert": (
        to_litert,
        ".tflite",
        "from ai_edge_litert.interpreter import Interpreter; print(Interpreter({out!r}).get_signature_list())",
    ),
    "web": (
        to_web,
        "-web",
        "import runpy, sys; sys.argv[1:] = ['--bind', '127.0.0.1', '--directory', {out!r}]; "
        "runpy.run_module('http.server', run_name='__main__')",
    ),
    "torch_export": (to_torch_export, ".pt2", "import torch; print(torch.export.load({out!r}).graph_signature)"),
    "safetensors": (
        to_safetensors,
        ".safetensors",
        "from safetensors.torch import load_file; print(list(load_file({out!r})))",
    ),
    "timm": (to_timm, "_timm", "import timm; print(timm.create_model('local-dir:' + {out!r}, pretrained=True))"),
}
"""What writes each format, the suffix of its file or folder, and Python code that loads it."""
WEIGHTS_ONLY = ("safetensors", "timm")  # formats without a computation
FOLDER_FORMATS = ("timm", "web")  # formats that are a folder
TRIAL_IMAGES = 3  # more than the 2 that the exporter traces, which shows that the batch size is free


@dataclass(frozen=True)
class ExportResult:
    """The files written by an export.

    On images of noise, probabilities (or values) of the exported model and of the run have at most this `difference`;
    it is None if the format contains no computation, or approximates the run: `notes` has what was measured.
    """

    files: list[Path]
    difference: float | None
    preparation: str  # how to resize and crop an image for the model
    loading: str  # Python code that loads the exported model, without this package
    notes: Sequence[str] = ()
    compared_with: str = "the run's"  # predictions from which those of the exported model differ by `difference`

    def lines(self) -> list[str]:
        """Return the lines that `transfer export` prints."""
        agreement = f"predictions equal {self.compared_with} to within"
        return [
            *(f"wrote {file}" for file in self.files),
            *([] if self.difference is None else [f"{agreement} {self.difference:.1e}"]),
            *self.notes,
            f"images: {self.preparation}; uint8 RGB",
        ]


def export(config: ExportConfig) -> ExportResult:
    """Export as `config` says.

    A TransferError says that there is no such run, the format cannot express it, or the path cannot be written.
    """
    prepare, suffix, loading = FORMATS[config.format]
    run = config.run if config.run.is_dir() else config.run.parent / config.run.stem
    out = config.out or Path(f"{run.absolute()}{suffix}")
    if out.is_dir() != (config.format in FOLDER_FORMATS) and out.exists():
        raise TransferError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: give another path")
    if config.format == "openvino" and out.suffix != suffix:
        raise TransferError(f"--out {out}: OpenVINO reads .xml files, with the weights in a .bin file beside them")
    if config.coverage is not None and config.format == "timm":
        raise TransferError("--coverage: a timm folder has no prediction sets; use --format onnx or safetensors")
    if config.unknown and config.format in WEIGHTS_ONLY:
        raise TransferError(
            f"--unknown: --format {config.format} has weights alone, and the unknown score is a computation; use "
            "--format onnx or torch_export"
        )
    models = checkpoint.load_models(config.run)
    compared_with = _leave_int8(models)
    size = next(iter(models.values())).backbone.preprocessing.input_size
    images = torch.randint(0, 256, (TRIAL_IMAGES, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = {k: v.numpy() for model in models.values() for k, v in model.predict(images).items()}
    about = describe_models(models)
    if config.coverage is not None:
        about["prediction_sets"] = _describe_sets(models, load_uncertainty(config.run), config.coverage)
    unknown = None
    if config.unknown:
        unknown = load_uncertainty(config.run).unknown
        if unknown is None:
            raise TransferError(f"--unknown: {config.run} has no unknown score, made of held-out images")
        about["unknown"] = {"output": f"{HEAD}_unknown", "score": unknown.name}
    prepared = prepare(
        ExportSource(models, about, images, expected, config.run, unknown, config.max_loss, config.web_runtime)
    )
    difference = find_largest_difference(config.format, prepared.predictions, expected)
    files = prepared.write(out)
    loading = loading.format(out=str(out))
    return ExportResult(files, difference, about["how"], loading, prepared.notes, compared_with)


def _leave_int8(models: checkpoint.Models) -> str:
    """Let int8 trunks compute in float32, which formats hold; return whose predictions the export is compared with."""
    int8 = [model.backbone for model in models.values() if model.backbone.engine == "int8"]
    for backbone in int8:
        backbone.engine = "auto"
    return "the run's in float32 (the run itself computes its frozen layers with int8)" if int8 else "the run's"


def _describe_sets(models: checkpoint.Models, uncertainty: Uncertainty, coverage: float) -> dict[str, Any]:
    """Return the ``coverage``, and by head the ``least_probability`` (classes,) of a class in the prediction set."""
    heads = [name for model in models.values() for name in model.heads.specs if name in uncertainty.sets]
    least = {name: 1 - uncertainty.sets[name].compute_thresholds(coverage) for name in heads}
    return {"coverage": coverage, "least_probability": {name: values.tolist() for name, values in least.items()}}
