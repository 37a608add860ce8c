"""What a report shows besides figures, left in the run folder: pictures, where the network looked, a map of features.

Test images are looked at once all is chosen and answered; nothing here has a part in the result.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from transfer import freeze
from transfer.data.images.batches import ImageBatches
from transfer.data.images.read import to_image
from transfer.data.table import ImageTable
from transfer.evaluation.gradcam import compute_gradcam
from transfer.evaluation.predictions import Predictions
from transfer.evaluation.tsne import embed_tsne
from transfer.feature_cache import Feed
from transfer.freeze import FreezePlan
from transfer.heads import ClassHeadKind, find_head_kind
from transfer.model import TransferModel

MISTAKES_SHOWN, HITS_SHOWN, SAMPLE_SHOWN = 12, 8, 16  # pictures in each gallery
EXPLAINED_EACH = 4  # mistakes, and correct predictions, with Grad-CAM maps
TOP = 3  # classes named under a picture
SIDE = 160  # pixels of a picture's longer side at most
MAX_MAPPED_IMAGES = 500  # images on the map

ReportData = dict[str, Any]


@dataclass(frozen=True)
class FeatureState:
    """Features at some moment, and how an image's object is known then.

    Parameters
    ----------
    title : str
    features : ndarray of float32, shape (N, F)
    objects, domains : ndarray of int64, shape (N,)
        -1 where unknown.
    """

    title: str
    features: np.ndarray
    objects: np.ndarray
    domains: np.ndarray


class InitialWeights:
    """The backbone's weights before training, as far as `plan` lets them move."""

    def __init__(self, model: TransferModel, plan: FreezePlan) -> None:
        self.network = model.backbone.network
        held = freeze.hash_frozen_tensors(model.backbone, plan.phases)
        self.weights = {n: t.clone() for n, t in self.network.state_dict().items() if n not in held}

    @contextmanager
    def again(self) -> Iterator[None]:
        """Give the backbone these weights for a while."""
        own = self.network.state_dict()
        kept = {name: own[name].clone() for name in self.weights}
        try:
            self.network.load_state_dict(self.weights, strict=False)
            yield
        finally:
            self.network.load_state_dict(kept, strict=False)


def features_before_and_after(
    start: InitialWeights, model: TransferModel, feed: Feed, table: ImageTable, rows: np.ndarray
) -> list[FeatureState]:
    """Return the features of `rows` before and after training, once if no weight moved; MAX_MAPPED_IMAGES at most."""
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:MAX_MAPPED_IMAGES])
    marks = table.object[rows], table.domain[rows]
    after = FeatureState("after training", _features(model, feed, rows), *marks)
    if not start.weights:
        return [FeatureState("pretrained features, which stayed as they were", after.features, *marks)]
    with start.again():
        return [FeatureState("before training", _features(model, feed, rows), *marks), after]


def _features(model: TransferModel, feed: Feed, rows: np.ndarray) -> np.ndarray:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model.features(some).float() for _, some in feed.batches(rows)]).cpu().numpy()


def build_report_data(
    test: ImageTable,
    answers: Predictions,
    model: TransferModel,
    states: Sequence[FeatureState],
    domains: Sequence[str],
    workers: int | None = None,
) -> ReportData:
    """Return the exhibits of a run as plain JSON values.

    Parameters
    ----------
    test : ImageTable
        The test images, of which there is at least one, with their true labels.
    answers : Predictions
        On these.
    model : TransferModel
        Whose object head is explained.
    states : sequence of FeatureState
    domains : sequence of str
        Names of theirs.

    Returns
    -------
    dict
        ``galleries``: by name, row numbers of predictions.csv. ``pictures``: by row number ``jpeg`` (base64, as the
        network sees the image) and ``top`` (by head, [class, probability] of the likeliest). ``explained``: by row
        number, maps (h, w) in [0, 1] of what spoke for the ``answer`` and, where that is another, for the ``truth``.
        ``map``: ``states`` with ``title``, ``places`` (N, 2), ``objects`` and ``domains``; the ``names`` of both.
    """
    galleries = choose_galleries(test, answers)
    rows = np.unique(np.concatenate([np.asarray(some, dtype=np.int64) for some in galleries.values()]))
    images = _images(test, model, rows, workers)
    return {
        "galleries": galleries,
        "pictures": {
            str(row): {"jpeg": _jpeg(image), "top": _top(test, answers, row)}
            for row, image in zip(rows.tolist(), images, strict=True)
        },
        "explained": _explained(test, answers, model, galleries["explained"], rows, images),
        "map": _map(states, test.objects, domains),
    }


def choose_galleries(test: ImageTable, answers: Predictions) -> dict[str, list[int]]:
    """Return which test images to show, by the name of their gallery."""
    galleries: dict[str, list[int]] = {}
    sample = np.random.default_rng(0).permutation(len(test))
    explained: list[int] = []
    for name, values in answers.items():
        target = test.targets[name]
        kind = find_head_kind(target.kind)
        if not isinstance(kind, ClassHeadKind):
            continue
        sure = kind.confidence(values)
        right = kind.decide(values) == target.values
        order = np.argsort(-sure, kind="stable")
        galleries[f"{name} mistakes"] = order[target.known[order] & ~right[order]][:MISTAKES_SHOWN].tolist()
        galleries[f"{name} hits"] = order[::-1][right[order[::-1]]][:HITS_SHOWN].tolist()
        if name == "object":
            hits = sample[right[sample]][:EXPLAINED_EACH].tolist()
            explained = [*galleries["object mistakes"][:EXPLAINED_EACH], *hits]
    return galleries | {"sample": sample[:SAMPLE_SHOWN].tolist(), "explained": explained}


def _images(test: ImageTable, model: TransferModel, rows: np.ndarray, workers: int | None) -> Tensor:
    batches = ImageBatches(test.paths, model.backbone.preprocessing, batch_size=64, order=rows, workers=workers)
    return torch.cat([images for _, images in batches])


def _jpeg(pixels: Tensor) -> str:
    image = to_image(pixels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95 if max(image.size) < SIDE else 82)
    return base64.b64encode(file.getvalue()).decode()


def _top(test: ImageTable, answers: Predictions, row: int) -> dict[str, list[list[Any]]]:
    named = {}
    for name, values in answers.items():
        target = test.targets[name]
        kind = find_head_kind(target.kind)
        if isinstance(kind, ClassHeadKind):
            p = kind.class_probabilities(values[row])
            named[name] = [[target.classes[k], round(float(p[k]), 4)] for k in np.argsort(-p, kind="stable")[:TOP]]
    return named


def _explained(
    test: ImageTable, answers: Predictions, model: TransferModel, some: list[int], rows: np.ndarray, images: Tensor
) -> dict[str, Any]:
    if not some:
        return {}
    said, true = answers["object"].argmax(1), test.object
    known = answers["object"].shape[1]  # a target may hold objects that no source has
    wanted = [(row, "answer", said[row]) for row in some]
    wanted += [(row, "truth", true[row]) for row in some if 0 <= true[row] < known and true[row] != said[row]]
    places = np.searchsorted(rows, [row for row, _, _ in wanted])
    heat = compute_gradcam(model, images[torch.from_numpy(places)], np.array([k for _, _, k in wanted], dtype=np.int64))
    found: dict[str, Any] = {}
    for (row, what, _), one in zip(wanted, () if heat is None else heat, strict=heat is not None):
        found.setdefault(str(row), {})[what] = one.astype(float).round(3).tolist()
    return found


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
