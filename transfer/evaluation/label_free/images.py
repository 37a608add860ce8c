"""The expected accuracy on images: from a feed that caches their features, or straight from files."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from transfer.data.images.batches import ImageBatches
from transfer.errors import TransferError
from transfer.evaluation.label_free.expected_accuracy import MIN_IMAGES, AccuracyReference, ExpectedAccuracy
from transfer.evaluation.predictions import Predictions, iterate_outputs
from transfer.feature_cache import Feed
from transfer.heads.kind import ClassHeadKind
from transfer.model import TransferModel
from transfer.runtime.device import move_to

Batches = Iterator[tuple[Tensor, dict[str, Tensor]]]
"""Features (n, width) and the outputs of all heads."""

NO_REFERENCE = (
    "no expected accuracy: this needs a run of `transfer train`, by this version, with a head that chooses one of "
    "several classes, and validation images; train it again"
)
NO_REFERENCE_ADAPTED = (
    "no expected accuracy of an adapted run: held-out images of its source say little about other domains; `transfer "
    "adapt` prints an estimate for its target; label some of these images (`transfer pick`) and evaluate on them"
)
BATCH = 64  # images


def expect_accuracy_of_rows(
    model: TransferModel,
    feed: Feed,
    rows: Mapping[str, np.ndarray],
    references: Mapping[str, AccuracyReference],
    ensemble: Predictions | None = None,
) -> dict[str, ExpectedAccuracy]:
    """Return the expected accuracy of each head of `model` with a reference on its `rows` of `feed`.

    With the predictions of an `ensemble` for all rows of `feed`, by head, that of the ensemble. A head with fewer than
    `MIN_IMAGES` rows has none.
    """
    model.eval()
    names = [name for name in model.heads.specs if name in references and len(rows.get(name, ())) >= MIN_IMAGES]
    found = {}
    with torch.inference_mode():
        for name in names:
            together = ensemble[name][rows[name]] if ensemble else None
            expected = _expect(model, name, iterate_outputs(model, feed, rows[name]), references[name], together)
            if expected is not None:
                found[name] = expected
    return found


def expect_accuracy_of_files(
    models: Mapping[str, TransferModel], paths: Sequence[str], references: Mapping[str, AccuracyReference], head: str
) -> ExpectedAccuracy:
    """Return the expected accuracy of `head` on the image files `paths`.

    Raises
    ------
    TransferError
        There is no reference, or there are fewer than `MIN_IMAGES`.
    """
    if head not in references:
        raise TransferError(NO_REFERENCE)
    if len(paths) < MIN_IMAGES:
        raise TransferError(f"{len(paths)} images: an expected accuracy needs {MIN_IMAGES} or more")
    model = next(model for model in models.values() if head in model.heads.specs)
    model.eval()
    with torch.inference_mode():
        found = _expect(model, head, _read_batches(model, paths), references[head])
    if found is None:
        raise TransferError("no expected accuracy: the outputs of the network are NaN or infinite")
    return found


def _read_batches(model: TransferModel, paths: Sequence[str]) -> Batches:
    backbone = model.backbone
    device = next(backbone.parameters()).device
    for _, images in ImageBatches(paths, backbone.preprocessing, batch_size=BATCH, pin=device.type == "cuda"):
        yield model.compute(move_to(images, device))


def _expect(
    model: TransferModel,
    name: str,
    batches: Batches,
    reference: AccuracyReference,
    ensemble: np.ndarray | None = None,
) -> ExpectedAccuracy | None:
    features, predicted = [], []
    for x, outputs in batches:
        features.append(x.float().cpu().numpy())
        predicted.append(model.heads.predictions(outputs)[name].cpu().numpy())
    kind = model.heads.specs[name].head_kind
    assert isinstance(kind, ClassHeadKind)
    together = None if ensemble is None else kind.class_probabilities(ensemble)
    return reference.expect(kind.class_probabilities(np.concatenate(predicted)), np.concatenate(features), together)
