"""ONNX with 8-bit integers: a smaller and faster file, refused unless it is nearly as accurate as float32."""

from pathlib import Path
from typing import Any

from transfer.backbones.engines.calibration import CALIBRATION_IMAGES
from transfer.backbones.engines.quantise import measure_ranges, quantise
from transfer.errors import TransferError
from transfer.formats.int8_comparison import Int8Comparison, compare_models
from transfer.formats.portable import ExportSource, PreparedExport, find_largest_difference
from transfer.formats.run_images import find_test_images, find_training_images
from transfer.formats.to_onnx import build_onnx, describe_onnx, predict_onnx
from transfer.heads import HeadSpec
from transfer.heads.kind import ClassHeadKind
from transfer.runtime.files import atomic_write

FORMAT = "onnx-int8"
MOST_TEST_IMAGES = 5000  # that the accuracy is measured on: its standard error is then at most 0.7 percentage points


def to_onnx_int8(source: ExportSource) -> PreparedExport:
    """Return the run as a quantised ONNX model with the inputs, outputs and metadata of the ONNX export.

    The ranges of activations are those of training images. Accuracy is compared with float32 on the test images.

    Raises
    ------
    TransferError
        A package or the run's images are missing, a head's predictions are not one class an image, or the quantised
        model is slower than float32 or loses more than ``source.max_loss`` of the accuracy of a head.
    """
    specs = [spec for model in source.models.values() for spec in model.heads.specs.values()]
    _check_heads(specs)
    folder = source.run if source.run.is_dir() else source.run.parent
    preprocessing = next(iter(source.models.values())).backbone.preprocessing
    training = find_training_images(folder, preprocessing, CALIBRATION_IMAGES)
    test, table = find_test_images(folder, preprocessing, specs, MOST_TEST_IMAGES)
    plain = build_onnx(source, FORMAT)
    find_largest_difference(FORMAT, predict_onnx(plain, source.images), source.expected)
    images = (batch[i : i + 1] for batch in training.read("calibrating") for i in range(len(batch)))
    compared = compare_models(plain, quantise(plain, measure_ranges(plain, images)), test, table)
    compared.check(source.max_loss)
    content = _describe(compared, source.about, len(training.paths))

    def write(out: Path) -> list[Path]:
        with atomic_write(out) as temporary:
            temporary.write_bytes(content)
        return [out]

    return PreparedExport(write, {}, compared.lines())


def _check_heads(specs: list[HeadSpec]) -> None:
    for spec in specs:
        if not isinstance(spec.head_kind, ClassHeadKind):
            raise TransferError(
                f"--format {FORMAT} compares the accuracy of one class an image, and the head {spec.name} is "
                f"{spec.kind}: give --format onnx"
            )


def _describe(compared: Int8Comparison, about: dict[str, Any], calibrated: int) -> bytes:
    """Return the quantised model with `about` and how it was quantised in its metadata."""
    import onnx

    quantisation = {"calibrated_on": f"{calibrated} training images", "accuracy": compared.accuracy, "n": compared.n}
    model = onnx.load_model_from_string(compared.int8)
    describe_onnx(model, {**about, "quantisation": quantisation})
    onnx.checker.check_model(model)
    return model.SerializeToString()
