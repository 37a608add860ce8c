"""Data of a run's report, saved in its folder as exhibits.json: pictures, Grad-CAM maps, a map of features.

All of it is computed after training and testing, and has no influence on the result.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from transfer import freeze
from transfer.data.images.batches import ImageBatches
from transfer.data.images.read import to_image
from transfer.data.table import ImageTable
from transfer.evaluation.averages.ensemble import load_temporarily
from transfer.evaluation.gradcam import compute_gradcam
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.tsne import embed_tsne
from transfer.feature_cache import Feed
from transfer.freeze import FreezePlan
from transfer.heads import ClassHeadKind, find_head_kind
from transfer.model import TransferModel

MISTAKES_SHOWN, HITS_SHOWN, SAMPLE_SHOWN = 12, 8, 16  # pictures in each gallery
EXPLAINED_EACH = 4  # mistakes, and correct predictions, with Grad-CAM maps
TOP_CLASSES = 3  # named under a picture
PICTURE_SIDE = 160  # pixels of a picture's longer side, at most
MAX_MAPPED_IMAGES = 500  # images on the map


@dataclass(frozen=True)
class FeatureState:
    """Features of images before or after training, for a map."""

    title: str
    features: np.ndarray  # float32 (N, F)
    objects: np.ndarray  # class indices (N,) that colour the map, -1 where unknown
    domains: np.ndarray  # likewise


class InitialWeights:
    """A copy of the backbone's weights before training, of those that `plan` trains."""

    def __init__(self, model: TransferModel, plan: FreezePlan) -> None:
        self.network = model.backbone.network
        frozen = freeze.find_frozen_tensors(model.backbone, plan.phases)
        self.weights = {n: t.clone() for n, t in self.network.state_dict().items() if n not in frozen}

    def restored(self) -> AbstractContextManager[None]:
        """Give the backbone these weights within the context."""
        return load_temporarily(self.network, self.weights)


def features_before_and_after(
    start: InitialWeights, model: TransferModel, feed: Feed, table: ImageTable, rows: np.ndarray
) -> list[FeatureState]:
    """Return the features of `rows` before and after training, once if no weight moved; MAX_MAPPED_IMAGES at most."""
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_MAPPED_IMAGES])
    labels = table.object[rows], table.domain[rows]
    after = FeatureState("after training", _features(model, feed, rows), *labels)
    if not start.weights:
        return [FeatureState("pretrained features (the backbone is frozen)", after.features, *labels)]
    with start.restored():
        return [FeatureState("before training", _features(model, feed, rows), *labels), after]


def _features(model: TransferModel, feed: Feed, rows: np.ndarray) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model.features(activation).float() for _, activation in feed.batches(rows)]).cpu().numpy()


def build_report_data(
    test: ImageTable,
    predictions: Predictions,
    model: TransferModel,
    states: Sequence[FeatureState],
    domains: Sequence[str],
    workers: int | None = None,
) -> dict[str, Any]:
    """Return the content of exhibits.json, as plain JSON values.

    `test` has at least one image. Grad-CAM explains the object head of `model`. `domains` are the domain names of
    `states`, by index.

    Returns
    -------
    dict
        ``galleries``: by name, row numbers of predictions.csv. ``pictures``: by row number ``jpeg`` (base64, as the
        network sees the image) and ``top`` (by head, [class, probability] of the most likely classes).
        ``explained``: by row number, Grad-CAM maps (h, w) in [0, 1] for the predicted class, ``answer``, and, if it
        differs, for the true class, ``truth``. ``map``: ``states`` with ``title``, ``places`` (N, 2), ``objects``
        and ``domains``; the ``names`` of both.
    """
    galleries = choose_galleries(test, predictions)
    rows = np.unique(np.concatenate([np.asarray(shown, dtype=np.int64) for shown in galleries.values()]))
    batches = ImageBatches(test.paths, model.backbone.preprocessing, batch_size=64, order=rows, workers=workers)
    images = torch.cat([batch for _, batch in batches])
    return {
        "galleries": galleries,
        "pictures": {
            str(row): {"jpeg": _jpeg(image), "top": _top(test, predictions, row)}
            for row, image in zip(rows.tolist(), images, strict=True)
        },
        "explained": _explained(test, predictions, model, galleries["explained"], rows, images),
        "map": _map(states, test.objects, domains),
    }


def choose_galleries(test: ImageTable, predictions: Predictions) -> dict[str, list[int]]:
    """Return the rows of the test images to show, by the name of their gallery."""
    galleries: dict[str, list[int]] = {}
    explained: list[int] = []
    sample = np.random.default_rng(0).permutation(len(test))
    for name, values in predictions.items():
        target = test.targets[name]
        kind = find_head_kind(target.kind)
        found = kind.find_correct_rows(target, values)
        if found is None:
            continue
        correct, confidence = found
        order = np.argsort(-confidence, kind="stable")
        galleries[f"{name} mistakes"] = order[target.known[order] & ~correct[order]][:MISTAKES_SHOWN].tolist()
        galleries[f"{name} hits"] = order[::-1][(correct & target.known)[order[::-1]]][:HITS_SHOWN].tolist()
        if name == "object":
            hits = sample[correct[sample]][:EXPLAINED_EACH].tolist()
            explained = [*galleries["object mistakes"][:EXPLAINED_EACH], *hits]
    return galleries | {"sample": sample[:SAMPLE_SHOWN].tolist(), "explained": explained}


def _jpeg(pixels: Tensor) -> str:
    image = to_image(pixels)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95 if max(image.size) < PICTURE_SIDE else 82)
    return base64.b64encode(file.getvalue()).decode()


def _top(test: ImageTable, predictions: Predictions, row: int) -> dict[str, list[list[Any]]]:
    top = {}
    for name, values in predictions.items():
        target = test.targets[name]
        kind = find_head_kind(target.kind)
        if target.classes:
            p = kind.class_probabilities(values[row]) if isinstance(kind, ClassHeadKind) else values[row]
            best = np.argsort(-p, kind="stable")[:TOP_CLASSES]
            top[name] = [[target.classes[k], round(float(p[k]), 4)] for k in best]
    return top


def _explained(
    test: ImageTable, predictions: Predictions, model: TransferModel, shown: list[int], rows: np.ndarray, images: Tensor
) -> dict[str, Any]:
    """Return Grad-CAM maps of the rows `shown`; `images` (M, 3, H, W) are those of `rows`, sorted."""
    if not shown:
        return {}
    predicted, true = predictions["object"].argmax(1), test.object
    known = predictions["object"].shape[1]  # a target domain may have objects that no source has
    wanted = [(row, "answer", predicted[row]) for row in shown]
    wanted += [(row, "truth", true[row]) for row in shown if 0 <= true[row] < known and true[row] != predicted[row]]
    places = np.searchsorted(rows, [row for row, _, _ in wanted])
    classes = np.array([label for _, _, label in wanted], dtype=np.int64)
    heat = compute_gradcam(model, images[torch.from_numpy(places)], classes)
    maps: dict[str, Any] = {}
    for (row, key, _), values in zip(wanted, () if heat is None else heat, strict=heat is not None):
        maps.setdefault(str(row), {})[key] = values.astype(float).round(3).tolist()
    return maps


def _map(states: Sequence[FeatureState], objects: Sequence[str], domains: Sequence[str]) -> Mapping[str, Any]:
    finite = [state for state in states if np.isfinite(state.features).all()]
    return {
        "states": [
            {
                "title": state.title,
                "places": embed_tsne(state.features).astype(float).round(2).tolist(),
                "objects": state.objects.tolist(),
                "domains": state.domains.tolist(),
            }
            for state in tqdm(finite, desc="map of features", unit="t-SNE", disable=None, leave=False)
        ],
        "names": {"objects": list(objects), "domains": list(domains)},
    }
