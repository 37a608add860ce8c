"""Calibration of a network for 8-bit integers: the ranges of its activations on a sample of training images."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from transfer.backbones.backbone import Backbone
from transfer.backbones.engines.activation_ranges import ActivationRanges
from transfer.backbones.engines.compiled import StagesKey
from transfer.backbones.engines.graph import export_stages
from transfer.backbones.engines.onnxruntime_engine import OnnxRuntimeEngine
from transfer.backbones.engines.quantise import measure_ranges, quantise, simplify
from transfer.data.images.batches import ImageBatches
from transfer.errors import TransferError, get_first_line
from transfer.runtime import distributed

CALIBRATION_IMAGES = 128
DECODED_AT_ONCE = 16  # images per batch
CHECKED_IMAGES = 4
MAX_INT8_ERROR = 0.5  # of the features' length; pretrained networks have 0.05 to 0.2


_calibrations: dict[tuple[Any, ...], ActivationRanges] = {}  # of this process, by all that they depend on


def calibrate(backbone: Backbone, paths: np.ndarray, digests: np.ndarray, workers: int | None = None) -> None:
    """Give `backbone` its ``calibration`` on a sample of training images, if it runs on int8.

    The sample has the images whose sha256 come first, so it depends neither on their order nor on the machine.

    Parameters
    ----------
    backbone : Backbone
        With its final frozen weights.
    paths : np.ndarray
        Training images, and no others.
    digests : np.ndarray
        The sha256 of each.
    workers : int, optional
        Threads that decode.

    Raises
    ------
    TransferError
        There is no image, the network is not on a CPU, it cannot be quantised, or its features would be too different.
    """
    if backbone.engine != "int8":
        return
    if (device := next(backbone.parameters()).device.type) != "cpu":
        raise TransferError(f"--engine int8 runs on a CPU, not on {device}: add --device cpu, or leave --engine out")
    if not len(paths):
        raise TransferError("--engine int8 needs training images to calibrate on, and there are none")
    order = np.unique(digests, return_index=True)[1][:CALIBRATION_IMAGES]
    cut, shape = len(backbone.stages), backbone.preprocessing.input_size
    stages = StagesKey.of(backbone, "onnxruntime", cut, 0, shape)
    key = (stages, json.dumps(backbone.preprocessing.to_dict()), *digests[order].tolist())
    if key not in _calibrations:
        batches = ImageBatches(
            paths, backbone.preprocessing, batch_size=DECODED_AT_ONCE, order=order, digests=digests, workers=workers
        )
        ranges = distributed.broadcast(_measure(backbone, batches, len(order)))
        _calibrations[key] = ActivationRanges(ranges, len(order))
    backbone.calibration = _calibrations[key]


def _measure(backbone: Backbone, batches: ImageBatches, count: int) -> dict[str, tuple[float, float]]:
    examples: list[np.ndarray] = []

    def read() -> Iterator[np.ndarray]:
        with tqdm(total=count, desc="calibrating", unit="image", disable=None, delay=2, leave=False) as bar:
            for _, images in batches:
                for image in backbone.preprocessing.normalise(images).split(1):
                    values = image.contiguous().numpy()
                    if len(examples) < CHECKED_IMAGES:
                        examples.append(values)
                    yield values
                    bar.update()

    noise = torch.randn((1, *backbone.preprocessing.input_size), generator=torch.Generator().manual_seed(0))
    try:
        graph = simplify(export_stages(backbone, len(backbone.stages), 0, noise)[0])
        ranges = measure_ranges(graph, read())
        error = _compare(graph, quantise(graph, ranges), examples)
    except TransferError as failure:
        raise TransferError(f"--engine int8: {backbone.name}: {failure}") from failure
    except Exception as failure:  # each network fails in its own way
        reason = get_first_line(failure)
        raise TransferError(f"--engine int8: {backbone.name} cannot be quantised: {reason}") from failure
    if not error <= MAX_INT8_ERROR:
        raise TransferError(f"--engine int8: {backbone.name}: its features would differ by {error:.0%} of their length")
    return ranges


def _compare(float32: bytes, int8: bytes, examples: list[np.ndarray]) -> float:
    """Return the length of the difference between the outputs of two graphs, relative to that of the first's."""
    outputs = []
    for graph in (float32, int8):
        engine = OnnxRuntimeEngine(graph, 1)
        outputs.append(np.concatenate([engine(values) for values in examples]))
    return float(np.linalg.norm(outputs[1] - outputs[0]) / np.linalg.norm(outputs[0]))
