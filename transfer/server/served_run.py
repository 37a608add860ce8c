"""A saved run as the server uses it: predictions with sets and unknown scores, features, and Grad-CAM."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from transfer.backbones.trunk import Trunk
from transfer.config.serving import ServeConfig
from transfer.errors import TransferError
from transfer.evaluation.gradcam import compute_gradcam
from transfer.evaluation.predict import describe_rows
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.uncertainty.caution import choose_caution
from transfer.evaluation.uncertainty.record import find_uncertainty
from transfer.evaluation.uncertainty.unknown import HEAD
from transfer.heads.kind import ClassHeadKind
from transfer.runs import checkpoint
from transfer.runtime.device import pick_device
from transfer.runtime.files import read_json


class PredictedImage(NamedTuple):
    """What `transfer predict` says of an image, with its ``doubt``; and its features (F,)."""

    row: dict[str, Any]
    features: np.ndarray


@dataclass(frozen=True)
class ExplainedImage:
    """A prepared image, and the class of the main head to explain."""

    pixels: Tensor
    label: int


class ServedRun:
    """A run of `transfer train` or `adapt`, loaded; its methods compute, and are called by one thread alone.

    Parameters
    ----------
    run : Path
        Run folder, or its model.safetensors.
    config : ServeConfig

    Raises
    ------
    TransferError
        There is no such run, or it is damaged.
    """

    def __init__(self, run: Path, config: ServeConfig) -> None:
        self.models = checkpoint.load_models(run, pick_device(config.device), config.engine)
        self.folder = run if run.is_dir() else run.parent
        self.name = self.folder.absolute().name or str(self.folder)
        self.specs = {name: spec for model in self.models.values() for name, spec in model.heads.specs.items()}
        self.preprocessing = next(iter(self.models.values())).backbone.preprocessing
        self.uncertainty = find_uncertainty(run)
        unknown = self.uncertainty.unknown if self.uncertainty else None
        self.coverage = config.coverage if self.uncertainty and self.uncertainty.sets else None
        self.max_unknown = config.max_unknown if unknown else 1.0
        self.caution = choose_caution(self.uncertainty, self.coverage, 0.0, self.max_unknown)
        with_classes = [name for name, spec in self.specs.items() if isinstance(spec.head_kind, ClassHeadKind)]
        self.main = HEAD if HEAD in with_classes or not with_classes else with_classes[0]
        self.main_model = next((m for m in self.models.values() if self.main in m.heads.specs), self._first_model())
        # One image at a time in each thread: a single one is answered soonest, and no other image changes its bits.
        self._trunks = {part: Trunk(m.backbone, m.cut, chunk=1) for part, m in self.models.items() if m.cut}

    def _first_model(self) -> Any:
        return next(iter(self.models.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the main head."""
        return self.specs[self.main].classes if self.main in self.specs else ()

    def find_class(self, label: str) -> str:
        """Return the class that `label` names, else `label`; browsers send U+FFFD for bytes that are no text."""
        shown = {re.sub("[\ud800-\udfff]", "\ufffd", name): name for name in self.classes}
        return label if label in self.classes else shown.get(label, label)

    def describe(self) -> dict[str, Any]:
        """Return what the page says of the run: its name, heads, backbone and accuracy on test images."""
        try:
            result = read_json(self.folder / "result.json")
        except TransferError:
            result = {}
        scores = result.get("test") or result.get("target") or {}
        heads = {name: {"kind": spec.kind, "classes": list(spec.classes)} for name, spec in self.specs.items()}
        shown = ("accuracy", "calibration_error", "n")
        return {
            "name": self.name,
            "backbone": self._first_model().backbone.name,
            "heads": heads,
            "main": self.main,
            "coverage": self.coverage,
            "max_unknown": self.max_unknown if self.caution and self.caution.unknown else None,
            "test": {head: {k: v for k, v in report.items() if k in shown} for head, report in scores.items()},
        }

    def make_blank(self) -> Tensor:
        """Return a black image as the network takes it, uint8 (3, H, W)."""
        return torch.zeros(self.preprocessing.input_size, dtype=torch.uint8)

    def predict(self, images: list[Tensor]) -> list[PredictedImage]:
        """Return the predictions for prepared uint8 `images`, each (3, H, W), with every class."""
        batch = torch.stack(images)
        features: dict[str, Tensor] = {}
        with torch.inference_mode():
            for part, model in self.models.items():
                model.eval()
                device = next(model.backbone.parameters()).device
                trunk = self._trunks.get(part)
                features[part] = model.features(model.round_activation(trunk(batch)) if trunk else batch.to(device))
            # The heads take one row at a time, since products of matrices are rounded differently for several rows.
            return [
                self._decide({part: rows[i : i + 1] for part, rows in features.items()}) for i in range(len(images))
            ]

    def _decide(self, features: dict[str, Tensor]) -> PredictedImage:
        """Return the prediction for one image from its features (1, F) by network."""
        found: Predictions = {}
        strangeness = None
        for part, model in self.models.items():
            outputs = model.heads(features[part])
            found |= {name: values.cpu().numpy() for name, values in model.heads.predictions(outputs).items()}
            if model is self.main_model:
                own = features[part][0].float().cpu().numpy()
            if self.caution and self.caution.unknown and HEAD in outputs:
                strangeness = self.caution.unknown.rate(features[part], outputs[HEAD]).cpu().numpy()
        row: dict[str, Any] = {}
        most = max((len(spec.classes) for spec in self.specs.values()), default=1)
        describe_rows([row], self.specs, found, strangeness, top=most, caution=self.caution)
        return PredictedImage(self._with_doubt(row), own)

    def _with_doubt(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add ``doubt``: 1 - the probability of the likeliest class; 1 where the image is of no known class."""
        probability = row.get(f"{self.main}_probability")
        if isinstance(probability, float):
            row["doubt"] = 1.0 if row.get(self.main) is None else round(1 - probability, 6)
        return row

    @property
    def explains(self) -> bool:
        """Whether Grad-CAM can explain the main head: it chooses one of several classes."""
        spec = self.specs.get(self.main)
        if spec is None:
            return False
        return self.main == HEAD and spec.outputs > 1 and isinstance(spec.head_kind, ClassHeadKind)

    def explain(self, wanted: Sequence[ExplainedImage]) -> list[np.ndarray | None]:
        """Return a heat map (h, w) in [0, 1] for each image; None where the network has no feature maps."""
        labels = np.array([each.label for each in wanted], dtype=np.int64)
        heat = compute_gradcam(self.main_model, torch.stack([each.pixels for each in wanted]), labels)
        return [None] * len(wanted) if heat is None else list(heat)


def shorten_lists(row: dict[str, Any], top: int) -> dict[str, Any]:
    """Return a prediction with no more than `top` classes in each list of classes with probabilities."""
    return {k: v[:top] if k.endswith("_top") and isinstance(v, list) else v for k, v in row.items()}
