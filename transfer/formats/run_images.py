"""The images of a saved run as its network reads them: training images to calibrate on, test images to measure on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from transfer.data.images.batches import ImageBatches
from transfer.data.images.preprocessing import Preprocessing
from transfer.data.shards.address import parse_address
from transfer.data.table import ImageTable
from transfer.errors import TransferError, list_examples
from transfer.evaluation.aligned_labels import load_test_table
from transfer.heads import HeadSpec
from transfer.runs.image_list import DIGEST, read_image_list

READ_AT_ONCE = 16  # images per batch


@dataclass(frozen=True)
class RunImages:
    """Image files in the order in which they are read, with their sha256 if these are known."""

    paths: list[str]
    preprocessing: Preprocessing
    digests: list[str] | None = None

    def read(self, title: str) -> Iterator[np.ndarray]:
        """Yield batches of prepared images, uint8 (N, 3, H, W), beside a progress bar with this `title`.

        A TransferError names an image that is missing, does not decode or has changed.
        """
        batches = ImageBatches(self.paths, self.preprocessing, batch_size=READ_AT_ONCE, digests=self.digests)
        with tqdm(total=len(self.paths), desc=title, unit="image", disable=None, delay=2, leave=False) as bar:
            for _, images in batches:
                yield images.numpy()
                bar.update(len(images))


def find_training_images(run: Path, preprocessing: Preprocessing, count: int) -> RunImages:
    """Return up to `count` images that the run in this folder was trained on, sampled without their labels.

    Images of the validation and test split are never among them. The sample depends on nothing but the list of images.

    Raises
    ------
    TransferError
        The run lists no images, or the sampled files are missing.
    """
    listed = [image for image in read_image_list(run) if image["split"] == "train"]
    if not listed:
        raise TransferError(f"{run} lists no training images, which are needed to calibrate: train the run again")
    places = np.sort(np.random.default_rng(0).permutation(len(listed))[:count])
    chosen = [listed[place] for place in places.tolist()]
    paths = [image["path"] for image in chosen]
    _check_files(run, paths, "training")
    return RunImages(paths, preprocessing, [image[DIGEST] for image in chosen])


def find_test_images(
    run: Path, preprocessing: Preprocessing, specs: list[HeadSpec], count: int
) -> tuple[RunImages, ImageTable]:
    """Return up to `count` test images of the run in this folder, sampled by a fixed seed, and a table of their labels.

    Raises
    ------
    TransferError
        The run has no test images, or the files are missing.
    """
    table = load_test_table(run, specs)
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:count]))
    paths = table.paths.tolist()
    _check_files(run, paths, "test")
    return RunImages(paths, preprocessing), table


def _check_files(run: Path, paths: list[str], part: str) -> None:
    """Raise a TransferError if image files are missing; addresses in shards are opened when they are read."""
    missing = [path for path in paths if not parse_address(path) and not Path(path).is_file()]
    if missing:
        raise TransferError(
            f"{len(missing):,} of {len(paths):,} {part} images of {run} are missing ({list_examples(missing, 2)}): "
            "put them back, or give --format onnx, which needs no images"
        )
