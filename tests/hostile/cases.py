"""Building blocks of hostile inputs: valid images, a valid run, command lines, and the list of cases."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
STRANGE = (
    "two words",
    "héllo wörld",
    "\u0645\u0631\u062d\u0628\u0627",
    "e\u0301 combining",
    "👩\u200d🚀 emoji",
    "'single' \"double\" `back`",
    "<script>alert(1)</script>".replace("/", "∕"),
    "a..\\up",
    "line\nbreak\r",
    "\x1b[31mred\x1b]0;title\x07",
    "c1 \x9b31m",
    "\u202egnp.exe",
    "--help",
    "-rf",
    "=cmd('calc')",
    "@SUM(1)",
    "a,b;c\td",
    "$\\frac{$",
    "{0} %s",
    "nan",
    "x" * 200,
    os.fsdecode(b"\xff\xfe bytes"),
)
NOTE = "#!/bin/sh\n"


def png(path: Path, mode: str = "RGB", size: tuple[int, int] = (16, 16), colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), colour, np.uint8)
    pixels[0, 0] = len(str(path)) % 251, sum(map(ord, path.stem)) % 251, colour
    Image.fromarray(pixels).convert(mode).save(path, "PNG")
    return path


def folder(root: Path, names: tuple[str, ...] = ("dark", "light"), each: int = 5) -> Path:
    """Write a valid set of images, a folder for each class."""
    for k, name in enumerate(names):
        for i in range(each):
            png(root / name / f"{i}.png", colour=(k * 151 + i) % 255)
    return root


def list_tree(path: Path) -> dict[str, Any]:
    """Return size and modification time of each file and link below a folder, None for folders."""
    found: dict[str, Any] = {}
    for where, folders, files in os.walk(path):
        for name in folders + files:
            stat = os.lstat(os.path.join(where, name))
            found[os.path.join(where, name)] = None if name in folders else (stat.st_size, stat.st_mtime_ns)
    return found


TRAIN = ["train", "--backbone", "glyphnet", "--device", "cpu", "--workers", "2"]


class Workspace:
    """The folder of a case, and copies of valid data and a valid run in it."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root, self.valid_run = root, run
        root.mkdir()

    def data(self) -> Path:
        return folder(self.root / "data")

    def run(self) -> Path:
        return Path(shutil.copytree(self.valid_run, self.root / "run"))

    def with_header(self, **changes: Any) -> Path:
        """Return a run with a changed header; ``__`` in a key leads to an inner value, the value ``...`` removes it."""
        from safetensors import safe_open
        from safetensors.torch import save_file

        file = self.run() / "model.safetensors"
        with safe_open(file, "pt") as opened:
            header = json.loads(opened.metadata()["transfer"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for name, value in changes.items():
            *above, last = name.split("__")
            place = header
            for key in above:
                place = place["" if key == "part" else int(key) if key.isdigit() else key]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        text = changes.get("text") or json.dumps(header)
        save_file(tensors, file, metadata={"transfer": text})
        return file.parent


def train_argv(folder: Path) -> list[str]:
    return [*TRAIN, "--data", str(folder)]


def predict_argv(run: Path, *images: Path) -> list[str]:
    return [
        "predict",
        str(run),
        *map(str, images or [next(run.parent.parent.glob("**/dark/0.png"))]),
        "--device",
        "cpu",
    ]


Builder = Callable[[Workspace], list[str]]
Case = tuple[Builder, int, str]


class Cases(dict[str, Case]):
    """Cases by unique name."""

    def __setitem__(self, name: str, case: Case) -> None:
        assert name not in self, name
        super().__setitem__(name, case)


CASES = Cases()


def case(name: str, code: int, message: str) -> Callable[[Builder], Builder]:
    """Add a case: a function that builds it and returns the command, the exit code, and a part of the message."""

    def add(build: Builder) -> Builder:
        CASES[name] = build, code, message
        return build

    return add


class BadPickle:
    """Runs a command when unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


NESTED = "[" * 100_000
