"""What an int8 trunk costs: the same heads on its features and on those of float32, for images not trained on."""

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from transfer.data.images.batches import ImageBatches
from transfer.data.table import ImageTable
from transfer.evaluation.predictions import evaluate_predictions, main_scores, predict_rows, target_tensors
from transfer.feature_cache import TrunkCache
from transfer.model import TransferModel

TRUNK_ROUNDS = 15  # of one image each
COMPARED_AT_ONCE = 64


@dataclass(frozen=True)
class TrunkComparison:
    """What was measured of an int8 trunk and its float32 original.

    `scores` has by head the accuracy (R² of numbers) with ``int8`` and with ``float32`` on `n` validation images.
    `error` is the mean length of the difference between an image's two activations, relative to that of float32's.
    `seconds` is the processor time of one image with each.
    """

    scores: Mapping[str, Mapping[str, float]]
    n: int
    error: float
    seconds: Mapping[str, float]
    calibrated_on: int  # training images

    @property
    def speed(self) -> float:
        """Images per second as a multiple of those of float32."""
        return self.seconds["float32"] / self.seconds["int8"]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return in one line what does not depend on the machine's load: scores and error."""
        scores = ", ".join(
            f"{name} {found['int8']:.3f}, float32 {found['float32']:.3f}" for name, found in self.scores.items()
        )
        accuracy = f"{scores} on {self.n:,} validation images; " if scores else ""
        return f"int8 trunk: {accuracy}features differ by {self.error:.1%} (calibrated on {self.calibrated_on} images)"

    def describe_speed(self) -> str:
        """Return in one line how fast int8 is here."""
        slower = "" if self.speed >= 1 else ": leave --engine out on this machine"
        return f"int8 trunk: {self.speed:.2f} times the images/s of float32{slower}"


def compare_trunks(
    model: TransferModel,
    cache: TrunkCache,
    table: ImageTable,
    digests: np.ndarray,
    rows: np.ndarray,
    workers: int | None = None,
) -> TrunkComparison | None:
    """Return what the int8 trunk of a trained `model` costs on `rows`, whose float32 features are computed for this.

    None where the trunk does not run on int8, or there is no row. The heads stay as they are: those of a run that is
    trained on float32 features may differ a little more. `model` is set to eval mode.
    """
    calibration = model.backbone.calibration
    if model.engine != "int8" or not calibration or not len(rows):
        return None
    backbone = copy.copy(model.backbone)  # with the same weights
    backbone.engine = "onnxruntime"
    plain = TransferModel(backbone, model.heads, model.cut, model.cut_precision)
    models = {"int8": model.eval(), "float32": plain.eval()}
    feeds = {
        name: cache.feed(each, table.paths, digests, batch_size=COMPARED_AT_ONCE, workers=workers)
        for name, each in models.items()
    }
    known, labels = table.take(rows), target_tensors(table, model)
    scores: dict[str, dict[str, float]] = {}
    for name, each in models.items():
        predictions = predict_rows(each, feeds[name], rows, labels)[0]
        predictions = {head: values for head, values in predictions.items() if known.targets[head].known.any()}
        reports = evaluate_predictions(known, predictions, intervals=False)
        for head, score in main_scores(reports, model.heads.specs).items():
            scores.setdefault(head, {})[name] = score
    errors = []
    for both in zip(*(feed.batches(rows) for feed in feeds.values()), strict=True):
        int8, float32 = (activation.float().flatten(1) for _, activation in both)
        errors.append((int8 - float32).norm(dim=1) / float32.norm(dim=1))
    _, image = next(iter(ImageBatches(table.paths, backbone.preprocessing, order=rows[:1], workers=1)))
    error = float(torch.cat(errors).mean())
    return TrunkComparison(scores, len(rows), error, _measure_seconds(models, image), calibration.images)


def _measure_seconds(models: Mapping[str, TransferModel], images: torch.Tensor) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(1 + TRUNK_ROUNDS):  # the first sets up
        for name, model in models.items():
            started = time.process_time()
            model.trunk(images)
            seconds[name] += [time.process_time() - started] if number else []
    return {name: float(np.median(found)) for name, found in seconds.items()}
