"""Image files as bytes: good ones, and ones that a server must refuse without harm."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 210), "green": (50, 200, 60), "red": (210, 50, 40)}  # those of the tiny set


def encode(colour: str = "red", kind: str = "PNG", size: tuple[int, int] = (32, 32), seed: int = 0) -> bytes:
    """Return an image of a class of the tiny set."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size[1], size[0], 3), COLOURS[colour], float) + rng.normal(0, 12, (size[1], size[0], 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, kind)
    return stream.getvalue()


def make_bomb(side: int = 30_000) -> bytes:
    """Return a PNG of a few kB that claims `side` squared pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def make_form(files: list[tuple[str, bytes]], boundary: str = "limit") -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form with these files, names and contents as they are."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


HOSTILE = {
    "empty": b"",
    "text": b"hello, this is no image",
    "html": b"<html><script>alert(1)</script></html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "executable": b"\x7fELF" + bytes(200),
    "signature of a PNG alone": b"\x89PNG\r\n\x1a\n",
    "signature of a JPEG alone": b"\xff\xd8\xff",
    "cut PNG": encode(size=(64, 64))[:2000],
    "cut JPEG": encode(kind="JPEG", size=(256, 256))[:800],
    "bomb": make_bomb(),
    "smaller bomb": make_bomb(7_000),
    "WebP of zeros": b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(100),
    "HEIF of zeros": b"\x00\x00\x00\x18ftypheic" + bytes(100),
    "TIFF of zeros": b"II*\x00" + bytes(100),
    "BMP of ones": b"BM" + b"\xff" * 100,
    "GIF of ones": b"GIF89a" + b"\xff" * 100,
}
