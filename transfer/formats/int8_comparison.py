"""A quantised ONNX model beside the float32 one: accuracy on test images, size, and speed on this machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.evaluation.predictions import Predictions, evaluate_predictions
from transfer.formats.run_images import RunImages
from transfer.formats.to_onnx import open_onnx, run_onnx

TIMED_ROUNDS = 30  # of one image each, after as many as warm up
WARM_UP_ROUNDS = 5
MEGABYTE = 1e6


@dataclass(frozen=True)
class Int8Comparison:
    """The content of both models, and what was measured of them.

    `accuracy` has by head that of ``float32`` and ``int8`` on the `n` test images. `speed` is the images per second of
    int8, one image at a time on one core, as a multiple of those of float32.
    """

    float32: bytes
    int8: bytes
    accuracy: Mapping[str, Mapping[str, float]]
    n: int
    speed: float

    def check(self, max_loss: float) -> None:
        """Raise a TransferError with the figures if int8 loses more accuracy than `max_loss`, or is slower."""
        for name, found in self.accuracy.items():
            if found["float32"] - found["int8"] > max_loss + 1e-9:  # differences of counts, rounded
                raise TransferError(
                    f"int8 loses too much: {name} accuracy {found['int8']:.3f}, float32 {found['float32']:.3f} on "
                    f"{self.n:,} test images; nothing is written (--max-loss allows {max_loss:g})"
                )
        if self.speed < 1:
            raise TransferError(
                f"int8 computes {self.speed:.2f} times as many images/s as float32 on this machine, one image at a "
                "time; nothing is written: give --format onnx"
            )

    def lines(self) -> list[str]:
        """Return what was measured, for the user."""
        accuracies = [
            f"{name} accuracy on {self.n:,} test images: int8 {found['int8']:.3f}, float32 {found['float32']:.3f}"
            for name, found in self.accuracy.items()
        ]
        sizes = f"{len(self.int8) / MEGABYTE:.1f} MB, float32 {len(self.float32) / MEGABYTE:.1f} MB"
        return [*accuracies, f"{sizes}; images/s here, one at a time on one core: {self.speed:.2f} times float32's"]


def compare_models(float32: bytes, int8: bytes, images: RunImages, table: ImageTable) -> Int8Comparison:
    """Return the comparison of two ONNX models on `images`, whose labels are in `table`."""
    contents = {"float32": float32, "int8": int8}
    sessions = {name: open_onnx(content) for name, content in contents.items()}
    parts: dict[str, list[Predictions]] = {name: [] for name in sessions}
    for batch in images.read("comparing"):
        for name, session in sessions.items():
            parts[name].append(run_onnx(session, batch))
    accuracy: dict[str, dict[str, float]] = {}
    for name, batches in parts.items():
        predictions = {head: np.concatenate([batch[head] for batch in batches]) for head in batches[0]}
        for head, report in evaluate_predictions(table, predictions, intervals=False).items():
            if "accuracy" in report:
                accuracy.setdefault(head, {})[name] = float(report["accuracy"])
    if not accuracy:
        raise TransferError(
            "no test image has a label, which the accuracy of int8 is measured with: give --format onnx"
        )
    return Int8Comparison(float32, int8, accuracy, len(table), measure_speed(float32, int8, batch[:1]))


def measure_speed(float32: bytes, int8: bytes, image: np.ndarray) -> float:
    """Return the median time of `float32` for one image, as a multiple of that of `int8`, measured in turns."""
    sessions: list[Any] = [open_onnx(content, threads=1) for content in (float32, int8)]
    seconds: list[list[float]] = [[], []]
    for _ in range(WARM_UP_ROUNDS + TIMED_ROUNDS):
        for session, times in zip(sessions, seconds, strict=True):
            started = time.perf_counter()
            session.run(None, {"images": image})
            times.append(time.perf_counter() - started)
    plain, quantised = (float(np.median(times[WARM_UP_ROUNDS:])) for times in seconds)
    return plain / quantised
