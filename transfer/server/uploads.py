"""Uploaded images: request bodies within limits, read into memory and never to the disk, and decoded.

The form parsers of web frameworks write large files to a temporary folder; this one does not.
"""

import asyncio
import io
import re
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass

from torch import Tensor

from transfer.config.serving import ServeLimitsConfig
from transfer.data.images.decode import BadImage, open_image
from transfer.data.images.preprocessing import Preprocessing, prepare
from transfer.data.images.read import read_pixels

BATCH_SIZES = 5  # a batch may have as many times the bytes of one image
BODIES_IN_MEMORY = 4  # batches of the largest size, of all requests together
MAX_FILE_NAME = 200  # characters of a file name that is shown
# Formats by what their files begin with; others, of which Pillow reads many, are refused before it sees them.
_SIGNATURES: dict[str, tuple[str, ...]] = {
    r"\xff\xd8\xff": ("JPEG", "MPO"),
    r"\x89PNG\r\n\x1a\n": ("PNG",),
    r"GIF8[79]a": ("GIF",),
    r"RIFF....WEBP": ("WEBP",),
    r"BM": ("BMP",),
    r"II\x2a\x00|MM\x00\x2a": ("TIFF",),
    r"....ftyp": ("HEIF", "AVIF"),
}
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
ACCEPTED_FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC or AVIF"


class RequestRefused(Exception):
    """A request that is answered by an error: HTTP status, a word for programs, and a line for people."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


@dataclass(frozen=True)
class UploadedFile:
    """A file of a request."""

    name: str
    content: bytes


class BodyReader:
    """Reads request bodies within the limits, and bounds how much all requests hold in memory together."""

    def __init__(self, limits: ServeLimitsConfig) -> None:
        self.limits = limits
        self.image_bytes = int(limits.max_megabytes * 1e6)
        self.batch_bytes = BATCH_SIZES * self.image_bytes
        self.room = BODIES_IN_MEMORY * self.batch_bytes
        self.held = 0

    def reserve(self, announced: str | None, most: int) -> int:
        """Return how many bytes are reserved for a body of the `announced` Content-Length; the caller releases them.

        Raises
        ------
        RequestRefused
            It is larger than `most`, or there is no room for it now.
        """
        if announced is not None and not re.fullmatch(r"\d{1,18}", announced):
            raise RequestRefused(400, "bad_length", "the header Content-Length is no number")
        size = most if announced is None else int(announced)
        if size > most:
            raise too_large(most)
        if self.held + size > self.room:
            raise RequestRefused(503, "busy", "too many uploads at the same time: try again", retry_after=1)
        self.held += size
        return size

    async def read(self, stream: AsyncIterator[bytes], most: int) -> bytes:
        """Return the whole body.

        Raises
        ------
        RequestRefused
            It is larger than `most`, or takes longer than the time limit.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for chunk in stream:
                    body += chunk
                    if len(body) > most:
                        raise too_large(most)
        except TimeoutError:
            message = f"the request did not arrive within {self.limits.timeout:g} seconds"
            raise RequestRefused(408, "too_slow", message) from None
        return bytes(body)


def too_large(most: int) -> RequestRefused:
    """Return the refusal of what has more than `most` bytes."""
    return RequestRefused(413, "too_large", f"more than {most / 1e6:g} MB (--max-megabytes of transfer serve)")


def split_form(content_type: str, body: bytes, most: int) -> list[UploadedFile]:
    """Return the files of a multipart/form-data body; its other fields are ignored.

    Raises
    ------
    RequestRefused
        The body is no such form, or has more than `most` parts.
    """
    found = re.search(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', content_type, re.IGNORECASE)
    if not found:
        raise RequestRefused(400, "bad_form", "multipart/form-data without a boundary")
    line = b"\r\n--" + (found[1] or found[2]).encode("latin-1")
    body = b"\r\n" + body
    files: list[UploadedFile] = []
    place, parts = body.find(line), 0
    while place >= 0:
        start = place + len(line)
        if body[start : start + 2] == b"--":
            return files
        place = body.find(line, start)
        end_of_headers = body.find(b"\r\n\r\n", start, place)
        if place < 0 or end_of_headers < 0:
            break
        parts += 1
        if parts > most:
            raise RequestRefused(413, "too_many", f"more than {most} images in one request (--max-images)")
        name = _read_file_name(body[start:end_of_headers])
        if name is not None:
            files.append(UploadedFile(name, body[end_of_headers + 4 : place]))
    raise RequestRefused(400, "bad_form", "the form is cut off, or is no multipart/form-data")


def _read_file_name(headers: bytes) -> str | None:
    """Return the file name of a part, a neutral one if it is hard to read; None for a part that is no file."""
    text = headers[:4096].decode("utf-8", "replace")
    found = re.search(r'filename="((?:[^"\\\r\n]|\\.)*)"|filename\*?=([^;\r\n]*)', text, re.IGNORECASE)
    return clean_name(found[1] if found[1] is not None else found[2]) if found else None


def clean_name(name: str) -> str:
    r"""Return a file name without folders and control characters; it is only shown, and names no file here.

    Examples
    --------
    >>> clean_name("../../etc/passwd"), clean_name("C:\\temp\\a.jpg"), clean_name("\x00")
    ('passwd', 'a.jpg', 'image')
    """
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C").strip()
    return visible[:MAX_FILE_NAME] or "image"


def check_image(content: bytes, limits: ServeLimitsConfig) -> str:
    """Return the suffix of the format of an image file, from its header alone.

    Raises
    ------
    RequestRefused
        It is empty, of no accepted format, damaged, or has too many bytes or pixels.
    """
    if not content:
        raise RequestRefused(400, "empty", "the request has no image")
    if len(content) > limits.max_megabytes * 1e6:
        raise too_large(int(limits.max_megabytes * 1e6))
    allowed = next(
        (kinds for start, kinds in _SIGNATURES.items() if re.match(start.encode(), content[:16], re.DOTALL)), ()
    )
    if not allowed:
        raise RequestRefused(415, "wrong_type", f"this is no image: give {ACCEPTED_FORMATS}")
    try:
        with open_image(io.BytesIO(content), "image") as image:
            width, height, kind = image.width, image.height, image.format or ""
    except BadImage as error:
        raise _refuse_bad(error) from error
    if kind not in allowed:
        raise RequestRefused(415, "wrong_type", f"this is no image: give {ACCEPTED_FORMATS}")
    if width * height > limits.max_megapixels * 1e6:
        most = f"more than {limits.max_megapixels:g} megapixels (--max-megapixels of transfer serve)"
        raise RequestRefused(413, "too_many_pixels", f"{width} x {height} pixels are {most}")
    return _SUFFIXES.get(kind, f".{kind.lower()}")


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as a network sees it, uint8 (3, H, W), and height and width of what it was made from, upright."""

    pixels: Tensor
    height: int
    width: int


def decode_upload(content: bytes, preprocessing: Preprocessing) -> PreparedImage:
    """Decode an image that :func:`check_image` accepted.

    Raises
    ------
    RequestRefused
        It does not decode to its end.
    """
    try:
        whole = read_pixels(content, name="image", at_least=preprocessing.needed, levels=preprocessing.levels)
    except BadImage as error:
        raise _refuse_bad(error) from error
    except MemoryError as error:
        raise RequestRefused(413, "too_many_pixels", "the image does not fit into memory") from error
    # A copy: the view would hold the memory of the whole image.
    return PreparedImage(prepare(whole, preprocessing).clone(), whole.shape[1], whole.shape[2])


def _refuse_bad(error: BadImage) -> RequestRefused:
    reason = str(error).removeprefix("bad image image: ")
    return RequestRefused(422, "bad_image", f"the image cannot be read: {reason}")
