"""A run's networks as one self-contained module, from resized pixels to the predictions of all heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.variants import TruncatedBackbone, pool_mean
from transfer.errors import TransferError
from transfer.evaluation.uncertainty.unknown import HEAD, UnknownScore
from transfer.model import TransferModel
from transfer.runs.checkpoint import Models

MAX_DIFFERENCE = 1e-2  # between probabilities; rounding differences are far smaller


class PortableModel(nn.Module):
    """All networks of a run: from uint8 images (N, 3, H, W), resized and cropped, to predictions.

    Normalisation is inside. Activations at an inner cut are rounded to float16 as in the run, so that both agree.
    `models` are modified in place, not copied. `least` has, by head, the probability (classes,) from which on a class
    belongs to the prediction set; heads that it lacks have no such output. `unknown` adds ``object_unknown``.
    """

    def __init__(
        self, models: Models, least: Mapping[str, Sequence[float]] | None = None, unknown: UnknownScore | None = None
    ) -> None:
        super().__init__()
        self.unknown = unknown
        self.least = {name: torch.tensor(values) for name, values in (least or {}).items()}
        self.models = nn.ModuleList(models.values()).cpu().to(memory_format=torch.contiguous_format).eval()
        specs = [spec for model in models.values() for spec in model.heads.specs.values()]
        self.thresholds = {spec.name: torch.tensor(spec.thresholds) for spec in specs if spec.thresholds}
        for model in models.values():
            if path := find_rounded_module(model):
                model.backbone.network.get_submodule(path).register_forward_hook(_round_to_half)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``HEAD_logits`` and ``HEAD_probabilities`` of each head with classes, ``HEAD_value`` (N,) of others.

        float32 (N, classes) for softmax and multilabel heads, (N,) for binary heads. ``HEAD_set``, bool (N, classes),
        says which classes are in an image's prediction set, ``HEAD_labels``, bool (N, labels), which labels a
        multilabel head predicts, and ``object_unknown`` (N,) how strange an image is: see :meth:`UnknownScore.rate`.
        """
        out: dict[str, Tensor] = {}
        for model in self.models:
            assert isinstance(model, TransferModel)
            heads, backbone = model.heads, model.backbone
            features = _features(backbone, backbone.preprocessing.normalise(images))
            logits = heads(features)
            for name, prediction in heads.predictions(logits).items():
                spec = heads.specs[name]
                if spec.classes:
                    out |= {f"{name}_logits": logits[name].float(), f"{name}_probabilities": prediction}
                    if name in self.least:
                        each = prediction if prediction.ndim == 2 else torch.stack([1 - prediction, prediction], 1)
                        out[f"{name}_set"] = (each >= self.least[name]) | (each == each.amax(1, keepdim=True))
                    if name in self.thresholds:
                        out[f"{name}_labels"] = prediction >= self.thresholds[name]
                else:
                    out[f"{name}_value"] = prediction
            if self.unknown and HEAD in logits:
                out[f"{HEAD}_unknown"] = self.unknown.rate(features, logits[HEAD])
        return out


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    """Return pooled features (N, width) of normalised `images`, as :meth:`Backbone.forward` does.

    Truncated networks run to their end, since exporters cannot follow an early exit; they remove the unused rest.
    """
    if not isinstance(backbone, TruncatedBackbone):
        return backbone(images)
    reached: list[Tensor] = []
    last = backbone.network.get_submodule(backbone.stages[-1].modules[-1])
    with last.register_forward_hook(lambda *call: reached.append(call[-1])):
        backbone.network(images)
    return pool_mean(reached[0])


def select_predictions(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the probabilities or values by head among a portable model's `outputs`."""
    ends = ("_probabilities", "_value")
    return {
        name.removesuffix(end): output.numpy() for name, output in outputs.items() for end in ends if name.endswith(end)
    }


def find_rounded_module(model: TransferModel) -> str:
    """Return the path of the module whose output the run rounds to float16, or an empty string."""
    stages = model.backbone.stages
    inner = 0 < model.cut < len(stages) and model.cut_precision == "float16"
    return stages[model.cut - 1].modules[-1] if inner else ""


def _round_to_half(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.clamp(-65504, 65504).half().float()


@dataclass(frozen=True)
class ExportSource:
    """What a format is made from.

    `images` are trial images, uint8 (N, 3, H, W), and `expected` the run's predictions for them by head. `run` is the
    folder or file that the models come from, `max_loss` the accuracy that a quantised model may lose, `web_runtime` the
    package onnxruntime-web.
    """

    models: Models
    about: dict[str, Any]
    images: Tensor
    expected: Mapping[str, np.ndarray]
    run: Path
    unknown: UnknownScore | None = None
    max_loss: float = 0.01
    web_runtime: Path | None = None


@dataclass(frozen=True)
class PreparedExport:
    """A run in another format, not written yet.

    The predictions of the exported model for the trial images are by head probabilities (N, classes), (N,) of binary
    heads, or values (N,). There are none if the format contains no computation, or only approximates the run.
    """

    write: Callable[[Path], list[Path]]  # takes the path to write to; returns the files written
    predictions: Mapping[str, np.ndarray]
    notes: Sequence[str] = ()  # what was measured


def find_largest_difference(
    format: str, predictions: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> float | None:
    """Return the largest difference between probabilities (or values) of an export and of its run; None without any.

    A TransferError says that it is no rounding difference.
    """
    difference = max(
        (float(np.abs(values - expected[name]).max()) for name, values in predictions.items()), default=None
    )
    if difference is not None and not difference <= MAX_DIFFERENCE:
        raise TransferError(
            f"--format {format}: its predictions differ from the run's by {difference:.2g}; nothing is written"
        )
    return difference
