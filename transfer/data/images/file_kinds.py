"""Which files are images by their names, and why the others are not read."""

import functools
import mimetypes
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from transfer.data.images.decode import HEIF_SUFFIXES, NEEDS_HEIF, has_heif
from transfer.data.left_out import LeftOut, LeftOutCounts
from transfer.runtime.files import open_regular

HIDDEN = "hidden"
NOT_AN_IMAGE = "not an image"
VIDEO = "a video: save its frames as images"
RAW = "camera RAW: convert to JPEG or PNG"
AVIF = "AVIF, which this Pillow cannot read: pip install --upgrade pillow"
SYSTEM = "made by an operating system"
OTHER_FORMAT = "a format that is not read: convert to JPEG or PNG"

_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG"}  # formats that PIL registers but cannot decode itself
_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),
)
_OTHER_SUFFIXES = (".jxl", ".jxr", ".jls", ".ai", ".xcf", ".kra")  # unknown to mimetypes
_VIDEO_SUFFIXES = (".mkv", ".m4v", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")  # unknown to some versions of mimetypes
_SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_TYPES = mimetypes.MimeTypes()  # without the tables of the system, which differ


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the lower-case file suffixes of the formats that PIL reads, such as ``.jpg``."""
    suffixes = Image.registered_extensions()  # also loads the plugins of PIL
    readable = (set(Image.OPEN) | {"MPO"}) - _NOT_DECODED  # the JPEG plugin opens MPO
    found = {suffix for suffix, form in suffixes.items() if form in readable}
    return frozenset(found.union(HEIF_SUFFIXES) if has_heif() else found.difference(HEIF_SUFFIXES))


def is_image(path: str | Path) -> bool:
    """Return whether `path` has the suffix of an image format and is not hidden."""
    name = os.path.basename(path)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes()


def is_passed_over(name: str) -> bool:
    """Return whether a folder of this `name` is not looked into: a hidden one, or one of an operating system."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def explain_unread(path: Path, *, opened: bool = True) -> str:
    """Return why `path` is not read: a file for which :func:`is_image` is false, or a folder that is passed over.

    If `opened`, a file whose suffix says nothing is recognised by its content, which may be an image.

    Examples
    --------
    >>> explain_unread(Path("a/.1.png")), explain_unread(Path("a/1.NEF")), explain_unread(Path("notes.txt"))
    ('hidden', 'camera RAW: convert to JPEG or PNG', 'not an image')
    """
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return HIDDEN
    if path.name in _SYSTEM_FOLDERS:
        return SYSTEM
    if suffix in HEIF_SUFFIXES:
        return NEEDS_HEIF
    if suffix in (".avif", ".avifs"):
        return AVIF
    if suffix in _RAW_SUFFIXES:
        return RAW
    kind, compression = _TYPES.guess_type(path.name)
    kind = "application" if compression else (kind or "").partition("/")[0]
    if kind == "video" or suffix in _VIDEO_SUFFIXES:
        return VIDEO
    if kind == "image" or suffix in _OTHER_SUFFIXES:
        return OTHER_FORMAT
    found = _recognise(path) if opened and not kind else ""
    return f"an image by its content, not by its name: let that end in {found}" if found else NOT_AN_IMAGE


def is_lost_image(reason: str) -> bool:
    """Return whether a file that is not read for `reason` is an image all the same."""
    return reason not in (HIDDEN, SYSTEM, NOT_AN_IMAGE, VIDEO)


def describe_left_out(files: Iterable[LeftOut]) -> list[str]:
    """Return for each reason the number of files, or of folders, whose paths end in a slash, and some names.

    Examples
    --------
    >>> describe_left_out([LeftOut("a/.1.png", "hidden"), LeftOut("b.txt", "not an image", "shard.tar")])
    ['1 file, hidden: a/.1.png', '1 file, not an image: b.txt (shard.tar)']
    """
    return LeftOutCounts(files).describe()


def _recognise(path: Path) -> str:
    """Return the suffix that suits the content of a file; an empty string if it is no usual image."""
    try:
        with open_regular(path) as file:
            head = file.read(16)
    except OSError:
        return ""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for signature, suffix in _SIGNATURES.items() if head.startswith(signature)), "")
