"""Decode an image file of any format that PIL reads into an upright RGB image."""

import functools
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageFile, ImageOps

from transfer.data.images.levels import DEFAULT_LEVELS, Levels, find_kind, scale_to_bytes
from transfer.errors import TransferError
from transfer.runtime.files import open_regular

MAX_PIXELS = 64_000_000  # of a decoded image; a JPEG may have more if it is decoded at a smaller size
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
NEEDS_HEIF = "HEIC images need another package: pip install 'transfer-toolkit[heic]'"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12, annex B


def has_heif() -> bool:
    """Return whether HEIC files can be read: the package pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def heif_version() -> str:
    """Return the version of pillow-heif; an empty string if it is not installed."""
    return importlib.metadata.version("pillow-heif") if has_heif() else ""


@functools.cache
def register_heif() -> None:
    """Let Pillow read HEIC files; it is done for the first such file, since the library takes memory.

    Raises
    ------
    ValueError
        The package pillow-heif is not installed.
    """
    if not has_heif():
        raise ValueError(NEEDS_HEIF)
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)


class BadImage(TransferError):
    """A file that does not decode. The message names it and says why."""


def decode(
    file: str | Path | BinaryIO, *, name: str = "", at_least: int | None = None, levels: Levels | None = ()
) -> Image.Image:
    """Decode an image file to 8-bit RGB.

    The EXIF orientation is applied, transparency laid on white, grey, palette, CMYK and 16-bit images
    converted; of an animation the first frame is taken.

    Parameters
    ----------
    file : path or binary file
    name : str
        Name of the file in errors (default: its path).
    at_least : int, optional
        Let a JPEG be decoded at a half, quarter or eighth of its size, its sides no smaller than this many
        pixels.
    levels : Levels or None
        Black and white of 16-bit, integer and float images (default: by their type, `DEFAULT_LEVELS`). None: the least
        and the largest value of each image, for what does not depend on contrast.

    Raises
    ------
    BadImage
        The file cannot be read or does not decode to its end.
    """
    with open_image(file, name or str(file)) as image:
        decode_smaller(image, at_least)
        return load_upright_rgb(image, levels)


@contextmanager
def open_image(file: str | Path | BinaryIO, name: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image file and read its header; turn any error into a BadImage."""
    try:
        source = open_regular(file) if isinstance(file, str | Path) else nullcontext(file)
        with source as stream, _open_any(stream) as image:
            if image.format == "EPS":  # PIL would run it with Ghostscript
                raise ValueError("PostScript is a program")
            yield image
    except Exception as error:  # PIL's plugins raise nearly anything on broken bytes
        raise BadImage(f"bad image {name}: {_reason(error)}") from error


def _open_any(stream: BinaryIO) -> ImageFile.ImageFile:
    """Open an image by Pillow, which reads HEIC by a further package."""
    head = stream.read(12)
    stream.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        try:
            return Image.open(stream)  # an AVIF may have such a brand, too
        except PIL.UnidentifiedImageError:
            register_heif()
            stream.seek(0)
    return Image.open(stream)


def decode_smaller(image: ImageFile.ImageFile, at_least: int | None) -> None:
    """Let a JPEG be decoded at a smaller size (see `decode`); refuse images of more than `MAX_PIXELS`."""
    if at_least:
        image.draft("RGB", (at_least, at_least))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} are more than {MAX_PIXELS:,} pixels")


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # malformed EXIF gives no orientation; the pixels are valid
        return 1


def load_upright(image: Image.Image) -> Image.Image:
    """Decode an open image to its own mode, its EXIF orientation applied."""
    image.load()
    return image if read_orientation(image) == 1 else _turned(image)


def load_upright_rgb(image: Image.Image, levels: Levels | None = ()) -> Image.Image:
    """Decode an open image by the rules of `decode`."""
    return to_rgb(load_upright(image), levels)


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF malformed elsewhere
        return image


def to_rgb(image: Image.Image, levels: Levels | None = ()) -> Image.Image:
    """Convert a decoded image to 8-bit RGB by the rules of `decode`."""
    if kind := find_kind(image.mode):
        values = np.asarray(image)
        if levels is None:
            finite = values[np.isfinite(values)]
            black = float(finite.min(initial=0.0))
            white = max(float(finite.max(initial=0.0)), black + 1e-6)
        else:
            black, white = next(pair for name, *pair in (*levels, *DEFAULT_LEVELS) if name == kind)
        return Image.fromarray(scale_to_bytes(values, black, white)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
