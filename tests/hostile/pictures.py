"""Hostile image files and folders."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .cases import CASES, NOTE, STRANGE, Workspace, case, folder, png, predict_argv, train_argv


def image_case(name: str, message: str, code: int = 2, suffix: str = ".jpg") -> Callable[[Callable[[Path], Any]], None]:
    """Add a case: one file beside valid images."""

    def add(build: Callable[[Path], Any]) -> None:
        def build_argv(workspace: Workspace) -> list[str]:
            build(workspace.data() / "dark" / f"x{suffix}")
            return train_argv(workspace.root / "data")

        CASES[name] = build_argv, code, message

    return add


def bomb(path: Path, side: int = 60_000) -> None:
    """Write a PNG whose header claims 3.6 thousand million pixels."""
    file = bytearray(png(path).read_bytes())
    import struct
    import zlib

    file[16:24] = struct.pack(">II", side, side)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    path.write_bytes(file)


def jpeg(path: Path) -> bytes:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG")
    return path.read_bytes()


def gif(path: Path) -> None:
    frames = [Image.new("P", (9, 9), i) for i in range(4)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


image_case("a file of zero bytes", "x.jpg: the file is empty")(lambda p: p.write_bytes(b""))
image_case("half a JPEG", "truncated")(lambda p: p.write_bytes(jpeg(p)[:1500]))
image_case("a script called .jpg", "x.jpg: not an image")(lambda p: p.write_text(NOTE))
image_case("HTML called .png", "x.png: not an image", suffix=".png")(
    lambda p: p.write_text("<script>alert(1)</script>")
)
image_case("a PNG called .jpg", "accuracy", 0)(png)
image_case("1 x 1 pixels", "accuracy", 0)(lambda p: png(p, size=(1, 1)))
image_case("30000 x 10 pixels", "accuracy", 0)(lambda p: png(p, size=(30000, 10)))
image_case("16 bits", "accuracy", 0)(
    lambda p: Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 256).save(p, "PNG")
)
image_case("an animated GIF", "accuracy", 0, ".gif")(gif)
image_case("a CMYK JPEG", "accuracy", 0)(lambda p: Image.new("CMYK", (9, 9), (9, 99, 200, 3)).save(p, "JPEG"))
image_case("a palette with transparency", "accuracy", 0, ".png")(
    lambda p: Image.new("P", (9, 9), 3).save(p, transparency=3)
)
image_case("a decompression bomb", "pixels")(bomb)
image_case("PostScript, which others would run", "PostScript is a program")(
    lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) (w) file\n")
)
image_case("a folder called x.jpg", "accuracy", 0)(lambda p: p.mkdir())
image_case("a pipe called x.jpg", "x.jpg: not a regular file")(os.mkfifo)
image_case("a link to a device", "x.jpg: not a regular file")(lambda p: p.symlink_to("/dev/zero"))
image_case("a link to nothing", "x.jpg: No such file")(lambda p: p.symlink_to("nowhere"))
image_case("a link to itself", "x.jpg: ")(lambda p: p.symlink_to(p))


@case("folders 500 deep", 0, "too deep to look into")
def _deep(workspace: Workspace) -> list[str]:
    workspace.data()
    os.chdir(workspace.root / "data")
    for _ in range(500):
        os.mkdir("d")
        os.chdir("d")
    Image.new("RGB", (9, 9)).save("x.png")
    os.chdir(workspace.root)
    return train_argv(workspace.root / "data")


@case("a link up to the folder", 0, "accuracy")
def _cycle(workspace: Workspace) -> list[str]:
    (workspace.data() / "up").symlink_to("..")
    return train_argv(workspace.root / "data")


@case("a link to the root of the disk", 0, "accuracy")
def _disk(workspace: Workspace) -> list[str]:
    (workspace.data() / "all").symlink_to("/")
    return train_argv(workspace.root / "data")


@case("60 folders, each linked to all the others", 2, "repeatedly")
def _mesh(workspace: Workspace) -> list[str]:
    names = [workspace.data() / f"n{i}" for i in range(60)]
    for name in names:
        name.mkdir()
    for name in names:
        for other in names:
            (name / other.name).symlink_to(other)
    return train_argv(workspace.root / "data")


@case("predict on folders 500 deep", 0, "dark")
def _deep_predict(workspace: Workspace) -> list[str]:
    _deep(workspace)
    return predict_argv(workspace.valid_run, workspace.root / "data")


@case("predict on a pattern through links in a circle", 0, "dark")
def _circle(workspace: Workspace) -> list[str]:
    (workspace.data() / "a").symlink_to(".")
    (workspace.root / "data" / "b").symlink_to(".")
    return predict_argv(workspace.valid_run, workspace.root / "data" / "**" / "0.png")


@case("predict on a pipe", 2, "no image at")
def _pipe(workspace: Workspace) -> list[str]:
    os.mkfifo(workspace.root / "x.jpg")
    return predict_argv(workspace.valid_run, workspace.root / "x.jpg")


@case("class names of every kind", 0, "accuracy")
def _names(workspace: Workspace) -> list[str]:
    return train_argv(folder(workspace.root / "data", STRANGE, 5))
