"""Measures of each image's file and pixels: size, format, orientation, brightness, contrast, blur; cached on disk."""

import contextlib
import functools
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image
from scipy.ndimage import uniform_filter1d
from tqdm.auto import tqdm

from transfer.data.images.decode import BadImage, decode_smaller, load_upright_rgb, open_image, read_orientation
from transfer.data.images.levels import Levels
from transfer.data.shards.prefetch import Contents
from transfer.disk_cache import CacheWriteError, DiskCache

FILE_FORMATS = ("", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "HEIF", "AVIF", "PPM", "JPEG2000", "ICO", "TGA")
PIXEL_MODES = ("", "RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "I", "F", "YCbCr")
MEASURED_SIDE = 224  # pixels of the longer side that pixels are measured at: about what a network sees
BLUR_WINDOW = 9  # pixels of the second blur, as published

_COLUMNS = ("width", "height", "orientation", "format", "mode", "dark_end", "bright_end", "contrast", "blur")
_RULES = {"pillow": PIL.__version__, "side": MEASURED_SIDE, "columns": list(_COLUMNS), "rules": 1}


@dataclass(frozen=True)
class ImageMeasures:
    """Measures of N images, each float32 (N,)."""

    width: np.ndarray  # pixels, upright
    height: np.ndarray
    orientation: np.ndarray  # of EXIF, 1: as stored
    format: np.ndarray  # index into FILE_FORMATS, 0 for another
    mode: np.ndarray  # index into PIXEL_MODES, 0 for another
    dark_end: np.ndarray  # luminance that 5 % of the pixels stay below, 0 to 1
    bright_end: np.ndarray  # luminance that 99 % of the pixels stay below
    contrast: np.ndarray  # standard deviation of luminance
    blur: np.ndarray  # 0 sharp to 1 blurred: see `measure_blur`

    @property
    def aspect(self) -> np.ndarray:
        """Longer over shorter side, (N,)."""
        return np.maximum(self.width, self.height) / np.maximum(np.minimum(self.width, self.height), 1)


def measure_images(
    paths: np.ndarray, digests: np.ndarray, levels: Levels = (), disk_cache: DiskCache | None = None
) -> ImageMeasures:
    """Measure the images at `paths` (N,), whose files have the sha256 `digests` (N,), once; a bad image is NaN."""
    values = np.full((len(paths), len(_COLUMNS)), np.nan, np.float32)
    todo = np.arange(len(paths))
    row_cache = None
    if disk_cache:
        rules = _RULES | {"levels": [list(level) for level in levels]}
        row_cache = disk_cache.open_rows("measures", rules, (len(_COLUMNS),), np.float32)
        located = row_cache.locate(digests)
        values[located.found] = located.take(np.flatnonzero(located.found))
        todo = todo[~located.found]
    bar = {"total": len(todo), "unit": "image", "disable": None if len(todo) else True, "leave": False}
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.closing(Contents(paths, todo)) as contents:
        measured = pool.map(functools.partial(_measure_file, contents, levels), range(len(todo)))
        for row, found in zip(todo, tqdm(measured, "measuring images", **bar), strict=True):
            values[row] = found
    if row_cache:
        sound = todo[~np.isnan(values[todo, 0])]
        sound = sound[np.unique(digests[sound], return_index=True)[1]]
        with contextlib.suppress(CacheWriteError), row_cache.open_writer(len(sound)) as writer:
            writer.append(digests[sound], values[sound])
    return ImageMeasures(*values.T)


def _measure_file(contents: Contents, levels: Levels, place: int) -> tuple[float, ...]:
    content = contents[place]
    try:
        with open_image(io.BytesIO(content) if isinstance(content, bytes) else content, contents.path(place)) as image:
            orientation, kind, mode = read_orientation(image), image.format or "", image.mode
            size = image.size[::-1] if orientation in (5, 6, 7, 8) else image.size  # before a smaller one is decoded
            decode_smaller(image, MEASURED_SIDE)
            grey = load_upright_rgb(image, levels).convert("L")
    except BadImage:
        return (np.nan,) * len(_COLUMNS)
    codes = (
        FILE_FORMATS.index(kind) if kind in FILE_FORMATS else 0,
        PIXEL_MODES.index(mode) if mode in PIXEL_MODES else 0,
    )
    return *size, orientation, *codes, *measure_pixels(grey)


def measure_pixels(grey: Image.Image) -> tuple[float, float, float, float]:
    """Return the dark end, bright end, contrast and blur of a grey image; see :class:`ImageMeasures`."""
    if max(grey.size) > MEASURED_SIDE:
        grey.thumbnail((MEASURED_SIDE, MEASURED_SIDE))
    luminance = np.asarray(grey, np.float32) / 255
    dark, bright = np.percentile(luminance, (5, 99))
    return float(dark), float(bright), float(luminance.std()), measure_blur(luminance)


def measure_blur(luminance: np.ndarray) -> float:
    """Return how blurred an image (H, W) is, 0 to 1, by what it loses when it is blurred once more.

    The greater of both directions of the no-reference measure of Crete et al. 2007 ("The blur effect"). An image
    without any edge has 1.
    """
    blur = 0.0
    for axis in (0, 1):
        edges = np.abs(np.diff(luminance, axis=axis))
        edges_after = np.abs(np.diff(uniform_filter1d(luminance, BLUR_WINDOW, axis=axis, mode="nearest"), axis=axis))
        total = float(edges.sum())
        lost = float(np.maximum(edges - edges_after, 0).sum())
        blur = max(blur, 1 - lost / total if total > 0 else 1.0)
    return blur
