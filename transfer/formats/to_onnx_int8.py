"""ONNX with 8-bit integers: a smaller and faster file, refused unless it is nearly as accurate as float32.

Weights have a scale per output channel, activations one per tensor: Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transfer.errors import TransferError
from transfer.formats.int8_comparison import Int8Comparison, compare_models
from transfer.formats.portable import ExportSource, PreparedExport, find_largest_difference
from transfer.formats.run_images import RunImages, find_test_images, find_training_images
from transfer.formats.to_onnx import build_onnx, describe_onnx, predict_onnx
from transfer.heads import HeadSpec
from transfer.heads.kind import ClassHeadKind
from transfer.runtime.files import atomic_write

FORMAT = "onnx-int8"
CALIBRATION_IMAGES = 128  # training images
FLOAT_CONVOLUTIONS = 3  # the first ones stay float32: the squared error of the features falls by two fifths
CLIPPING = ("Clip", "Relu")
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
    compared = compare_models(plain, _quantise(plain, training), test, table)
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


class _Reader:
    """Feeds onnxruntime's calibration, image by image."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self.batches, None)
        return None if images is None else {"images": images}


def _quantise(content: bytes, images: RunImages) -> bytes:
    """Return the quantised ONNX model, with activations in the ranges that `images` have.

    A range is the mean over images of the least and the largest value: the few larger values are clipped, which loses
    less than a coarser scale. Most weights have 7 bits: with 8, the matrix products of x86 processors without VNNI
    instructions overflow.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    CalibrationDataReader.register(_Reader)
    one_by_one = (batch[i : i + 1] for batch in images.read("calibrating") for i in range(len(batch)))
    reader: Any = _Reader(one_by_one)
    model = onnx.load_model_from_string(content)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    whole = {"quant_type": QuantType.QInt8, "axis": 0, "reduce_range": False}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        out = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            out,
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_list_float_nodes(model.graph, convolutions),
            extra_options={
                "CalibMovingAverage": True,
                "TensorQuantOverrides": {name: [whole] for name in _find_depthwise_weights(model.graph, convolutions)},
            },
        )
        return out.read_bytes()


def _list_float_nodes(graph: Any, convolutions: list[Any]) -> list[str]:
    """Return the names of the nodes that stay float32: the first convolutions, pooling and heads.

    Those are the nodes whose output no convolution depends on, but for clipping, which convolutions include.
    """
    needed = {name for node in convolutions for name in node.input}
    heads = []
    for node in reversed(graph.node):  # in topological order
        if needed.intersection(node.output):
            needed.update(node.input)
        elif node.op_type not in CLIPPING and node.op_type != "Conv":
            heads.append(node.name)
    return [*(node.name for node in convolutions[:FLOAT_CONVOLUTIONS]), *heads]


def _find_depthwise_weights(graph: Any, convolutions: list[Any]) -> list[str]:
    """Return the names of the weights of depthwise convolutions, which no processor computes as a matrix product."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    weights = [node.input[1] for node in convolutions[FLOAT_CONVOLUTIONS:]]
    return [name for name in weights if name in shapes and shapes[name][1] == 1 < shapes[name][0]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, on which onnxruntime advises a preprocessing that torch's exporter has done."""
    root, silent = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(silent)  # without a handler, logging would add one that prints
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(silent)


def _describe(compared: Int8Comparison, about: dict[str, Any], calibrated: int) -> bytes:
    """Return the quantised model with `about` and how it was quantised in its metadata."""
    import onnx

    quantisation = {"calibrated_on": f"{calibrated} training images", "accuracy": compared.accuracy, "n": compared.n}
    model = onnx.load_model_from_string(compared.int8)
    describe_onnx(model, {**about, "quantisation": quantisation})
    onnx.checker.check_model(model)
    return model.SerializeToString()
