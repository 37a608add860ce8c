"""Images in any form -> image files: paths stay as they are, pixels become temporary lossless PNG files.

Inspection, cache and decoding work on files. The same pixels give the same file, so that cached features are found.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer.data.images.decode import BadImage, load_upright, to_rgb
from transfer.data.images.levels import find_kind
from transfer.data.table import ImageTable
from transfer.errors import TransferError
from transfer.runtime.files import get_cache_folder

log = logging.getLogger(__name__)

ACCEPTED = "paths, PIL images, arrays (N, H, W, 3) of uint8 or of floats in [0, 1], or an ImageTable"


class InputError(TransferError, ValueError):
    """Images or labels in a form that is not accepted; also a ValueError, as scikit-learn requires."""


@contextmanager
def image_files(images: Any) -> Iterator[np.ndarray]:
    """Yield the path of each of `images`, ndarray of str (N,); temporary files are removed afterwards.

    Parameters
    ----------
    images : sequence of str, Path, PIL image or ndarray (H, W, 3); ndarray (N, H, W, 3); or ImageTable

    Raises
    ------
    InputError
        `images` has another form, is empty, or has floats outside [0, 1].
    TransferError
        Pixels can be written neither to the cache nor to the system's temporary folder.
    """
    if isinstance(images, ImageTable):
        yield images.paths
        return
    listed = _as_list(images)
    if all(isinstance(image, str | os.PathLike) for image in listed):
        yield np.array([str(Path(image).expanduser().absolute()) for image in listed])
        return
    folder, paths = _write_all(listed)
    try:
        yield paths
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_all(images: Sequence[Any]) -> tuple[Path, np.ndarray]:
    """Write images to a new folder in the cache, or, where that is not writable or full, in the system's folder.

    Return the folder and the path of each image.
    """
    cache = get_cache_folder("pixels")
    for root in (cache, Path(tempfile.gettempdir())):
        folder = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=root, prefix="transfer-pixels-"))
            paths = [folder / f"{i}.png" for i in range(len(images))]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_write, range(len(images)), images, paths))
            return folder, np.array([str(path) for path in paths])
        except BaseException as error:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, OSError):
                raise
            problem = f"cannot write the pixels to {root}: {error.strerror or error}"
            log.warning("%s", problem)
    raise TransferError(f"{problem}; let $TRANSFER_CACHE or $TMPDIR name a folder with free space")


def _as_list(images: Any) -> Sequence[Any]:
    if isinstance(images, str | os.PathLike | Image.Image):
        raise InputError(f"X is one image, expected a sequence: give [{type(images).__name__}], or {ACCEPTED}")
    if hasattr(images, "toarray"):
        raise InputError(f"X is a sparse matrix, expected {ACCEPTED}")
    if hasattr(images, "to_numpy"):  # a column of paths
        images = images.to_numpy()
    if isinstance(images, np.ndarray):
        if images.ndim == 2 and 1 in images.shape:  # a column of paths, as a pipeline may pass on
            images = images.ravel()
        if images.ndim not in (1, 4) or (images.ndim == 4 and images.shape[3] != 3):
            raise InputError(f"X has shape {images.shape}, expected {ACCEPTED}")
    try:
        listed = list(images)
    except TypeError as error:
        raise InputError(f"X is a {type(images).__name__}, expected {ACCEPTED}") from error
    if not listed:
        raise InputError(f"X has 0 images (shape={getattr(images, 'shape', (0,))}) while a minimum of 1 is required.")
    return listed


def _write(place: int, image: Any, path: Path) -> None:
    """Write an image to `path` losslessly."""
    if isinstance(image, str | os.PathLike):
        raise InputError(f"X[{place}] is a path among pixels: give only paths or only pixels")
    if isinstance(image, Image.Image):
        try:
            upright = load_upright(image)
            if find_kind(upright.mode):  # its levels are those of all images, and are applied when the file is read
                values = np.asarray(upright)
                Image.fromarray(values.astype(values.dtype.newbyteorder("="))).save(path, "TIFF")
                return
            rgb = to_rgb(upright)
        except Exception as error:  # PIL's plugins raise nearly anything on broken bytes
            raise BadImage(f"bad image X[{place}]: {error}") from error
    else:
        rgb = Image.fromarray(_pixels(place, np.asarray(image)))
    rgb.save(path, compress_level=1)


def _pixels(place: int, image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) as uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"X[{place}] has shape {image.shape}, expected an image (H, W, 3); X: {ACCEPTED}")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    if image.dtype.kind != "f":
        raise InputError(f"X[{place}] is of {image.dtype}, expected uint8 or floats in [0, 1]")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN is neither
        raise InputError(
            f"X[{place}] has values from {image.min():g} to {image.max():g}: float images lie in [0, 1] "
            "(divide by 255, or give uint8), without NaN or inf"
        )
    return np.rint(image * 255).astype(np.uint8)
