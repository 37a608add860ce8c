"""Test-time augmentation: the mean prediction over crops, mirror images and sizes of an image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from transfer.config.train import ViewConfig
from transfer.data.images.batches import ImageBatches
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError, get_first_line
from transfer.evaluation.predictions import Predictions
from transfer.model import TransferModel
from transfer.runtime.out_of_memory import is_out_of_memory

CROP_MARGIN = 256 / 224  # side of the square that ten crops are taken from, over theirs (Krizhevsky et al. 2012)
IMAGES_PER_BATCH = 32


def predict_views(
    model: TransferModel, paths: Sequence[str] | np.ndarray, config: ViewConfig, *, workers: int | None = None
) -> Predictions:
    """Return each head's mean prediction over all views of the images at `paths`.

    Ten crops are the four corners and the centre of a square, and their mirror images (Krizhevsky et al. 2012, sec.
    4.1). Other sizes go through the same network, whose pooling takes any (He et al. 2015, sec. 3.4); a larger one
    shows the whole image (see :meth:`transfer.data.images.preprocessing.Preprocessing.at_size`). Every crop is taken
    at every size. A size that the network does not take raises a TransferError.
    """
    trained = model.backbone.preprocessing
    sizes = config.test_sizes or (trained.input_size[1],)
    predictions: Predictions = {}
    with tqdm(total=len(sizes) * len(paths), desc="views", unit="image", disable=None, leave=False) as bar:
        for side in sizes:
            at = trained.at_size(side) if config.test_sizes else trained
            parts: dict[str, list[np.ndarray]] = {name: [] for name in model.heads.specs}
            shown = enlarge_for_crops(at) if config.test_crops == 10 else at
            for _, images in ImageBatches(paths, shown, batch_size=IMAGES_PER_BATCH, workers=workers):
                for name, values in _mean_prediction(model, make_views(images, at, config.test_crops)).items():
                    parts[name].append(values)
                bar.update(len(images))
            for name, arrays in parts.items():
                values = np.concatenate(arrays) if arrays else np.empty(0)
                predictions[name] = predictions.get(name, 0.0) + values / len(sizes)
    return predictions


def enlarge_for_crops(preprocessing: Preprocessing) -> Preprocessing:
    """Return the square that ten crops are taken from: the uncropped image, enlarged if it leaves no margin."""
    height, width = (
        max(whole, math.ceil(side * CROP_MARGIN))
        for whole, side in zip(preprocessing.resized, preprocessing.input_size[1:], strict=True)
    )
    return replace(preprocessing, input_size=(3, height, width), crop_pct=1.0)


def make_views(images: Tensor, preprocessing: Preprocessing, crops: int) -> Iterator[Tensor]:
    """Yield each view of `images` (N, 3, H, W), in the size of `preprocessing`: the images, or ten crops of them."""
    if crops == 1:
        yield images
    else:
        yield from functional.ten_crop(images, list(preprocessing.input_size[1:]))


def _mean_prediction(model: TransferModel, views: Iterator[Tensor]) -> Predictions:
    device = next(model.backbone.parameters()).device
    total: dict[str, Tensor] = {}
    count = 0
    for images in views:
        try:
            predictions = model.predict(images.to(device))
        except (MemoryError, RuntimeError, AssertionError, ValueError) as error:
            size = f"{images.shape[-2]} x {images.shape[-1]} pixels"
            if is_out_of_memory(error):
                reason = f"{len(images)} images of {size} do not fit into memory: try smaller --test-sizes"
            else:
                reason = f"{model.backbone.name} takes no images of {size}: try other --test-sizes"
            raise TransferError(f"{reason} ({get_first_line(error)})") from error
        total = {name: total.get(name, 0.0) + values for name, values in predictions.items()}
        count += 1
    return {name: (values / count).cpu().numpy() for name, values in total.items()}
