"""Files from strangers, fed to the commands: one clear line or a sensible result, and nothing written elsewhere."""

import contextlib
import csv
import faulthandler
import io
import itertools
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer.cli import main

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
    """A set of images that is sound."""
    for k, name in enumerate(names):
        for i in range(each):
            png(root / name / f"{i}.png", colour=(k * 151 + i) % 255)
    return root


def tree(path: Path) -> dict[str, Any]:
    """What lies below a folder: sizes and times of the files, goals of the links."""
    found: dict[str, Any] = {}
    for where, folders, files in os.walk(path):
        for name in folders + files:
            stat = os.lstat(os.path.join(where, name))
            found[os.path.join(where, name)] = None if name in folders else (stat.st_size, stat.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("sound")
    folder(root / "data")
    assert main([*TRAIN, "--data", str(root / "data"), "--out", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """End the tests where a command hangs, saying where: a thread that waits for a pipe cannot be ended otherwise."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


TRAIN = ["train", "--device", "cpu", "--workers", "2"]


class Given:
    """Where a case lays its files, and what there is of sound ones."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root, self.sound = root, run
        root.mkdir()

    def data(self) -> Path:
        return folder(self.root / "data")

    def run(self) -> Path:
        return Path(shutil.copytree(self.sound, self.root / "run"))

    def with_header(self, **changes: Any) -> Path:
        """A run with another header; a key with dots is that of an inner value, a value of ... is left out."""
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


def sees(folder: Path) -> list[str]:
    return [*TRAIN, "--data", str(folder)]


def predicts(run: Path, *images: Path) -> list[str]:
    return [
        "predict",
        str(run),
        *map(str, images or [next(run.parent.parent.glob("**/dark/0.png"))]),
        "--device",
        "cpu",
    ]


Case = tuple[Callable[[Given], list[str]], int, str]
CASES: dict[str, Case] = {}


def case(name: str, code: int, says: str) -> Callable[[Callable[[Given], list[str]]], Callable[[Given], list[str]]]:
    """Add a case: what builds it and returns the command, its exit code, and what its line (or output) says."""

    def add(build: Callable[[Given], list[str]]) -> Callable[[Given], list[str]]:
        CASES[name] = build, code, says
        return build

    return add


def image_case(name: str, says: str, code: int = 2, suffix: str = ".jpg") -> Callable[[Callable[[Path], Any]], None]:
    """Add a case: one file beside sound images."""

    def add(build: Callable[[Path], Any]) -> None:
        def laid(given: Given) -> list[str]:
            build(given.data() / "dark" / f"x{suffix}")
            return sees(given.root / "data")

        CASES[name] = laid, code, says

    return add


def bomb(path: Path, side: int = 60_000) -> None:
    """A PNG that says it has 3.6 thousand million pixels."""
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
image_case("a pipe called x.jpg", "x.jpg: no regular file")(os.mkfifo)
image_case("a link to a device", "x.jpg: no regular file")(lambda p: p.symlink_to("/dev/zero"))
image_case("a link to nothing", "x.jpg: No such file")(lambda p: p.symlink_to("nowhere"))
image_case("a link to itself", "x.jpg: ")(lambda p: p.symlink_to(p))


@case("folders 500 deep", 0, "too deep to look into")
def _deep(given: Given) -> list[str]:
    given.data()
    os.chdir(given.root / "data")
    for _ in range(500):
        os.mkdir("d")
        os.chdir("d")
    Image.new("RGB", (9, 9)).save("x.png")
    os.chdir(given.root)
    return sees(given.root / "data")


@case("a link up to the folder", 0, "accuracy")
def _cycle(given: Given) -> list[str]:
    (given.data() / "up").symlink_to("..")
    return sees(given.root / "data")


@case("a link to the root of the disk", 0, "accuracy")
def _disk(given: Given) -> list[str]:
    (given.data() / "all").symlink_to("/")
    return sees(given.root / "data")


@case("60 folders, each linked to all the others", 2, "again and again")
def _mesh(given: Given) -> list[str]:
    names = [given.data() / f"n{i}" for i in range(60)]
    for name in names:
        name.mkdir()
    for name in names:
        for other in names:
            (name / other.name).symlink_to(other)
    return sees(given.root / "data")


@case("predict on folders 500 deep", 0, "dark")
def _deep_predict(given: Given) -> list[str]:
    _deep(given)
    return predicts(given.sound, given.root / "data")


@case("predict on a pattern through links in a circle", 0, "dark")
def _circle(given: Given) -> list[str]:
    (given.data() / "a").symlink_to(".")
    (given.root / "data" / "b").symlink_to(".")
    return predicts(given.sound, given.root / "data" / "**" / "0.png")


@case("predict on a pipe", 2, "no image at")
def _pipe(given: Given) -> list[str]:
    os.mkfifo(given.root / "x.jpg")
    return predicts(given.sound, given.root / "x.jpg")


@case("class names of every kind", 0, "accuracy")
def _names(given: Given) -> list[str]:
    return sees(folder(given.root / "data", STRANGE, 5))


def table_case(name: str, content: bytes | str, code: int, says: str) -> None:
    """Add a case: a manifest beside sound images."""

    def laid(given: Given) -> list[str]:
        given.data()
        raw = content if isinstance(content, bytes) else content.encode()
        (given.root / "data" / "m.csv").write_bytes(raw)
        return sees(given.root / "data" / "m.csv")

    CASES[name] = laid, code, says


ROWS = "".join(f"{name}/{i}.png,{name}\n" for name in ("dark", "light") for i in range(5))
SOUND = "path,object\n" + ROWS
table_case("a table with a byte order mark", "\ufeff" + SOUND, 0, "accuracy")
table_case("a table with NUL bytes", SOUND.replace("dark\n", "dark\0\0\n"), 0, "accuracy")
table_case("a path with a NUL byte", SOUND.replace("0.png", "0.png\0"), 2, "line 2: no file")
table_case("a table in UTF-16", SOUND.encode("utf-16"), 2, "as a UTF-8 CSV")
table_case("a table in Latin-1", SOUND.replace("dark\n", "dörk\n").encode("latin-1"), 2, "as a UTF-8 CSV")
table_case("a field of a megabyte", SOUND.replace("dark\n", "d" * 2**20 + "\n"), 2, "field larger than field limit")
table_case("a class of 5,000 digits", SOUND.replace("dark\n", "9" * 5000 + "\n"), 0, "accuracy")
table_case("the same column twice", SOUND.replace("object\n", "object,Object\n"), 2, "cells, but the header")
table_case(
    "the same column twice, filled",
    SOUND.replace("\n", ",x\n").replace("object,x", "object,OBJECT"),
    2,
    "more than once",
)
table_case("an open quote", SOUND + '"dark/0.png', 2, "unexpected end of data")
table_case("a path that is a device", "path,object\n/dev/zero,a\n/dev/tty,b\n", 2, "no file /dev/zero")
table_case("a path of a million letters", f"path,object\n{'x' * 100_000},a\n", 2, "no file")
table_case("escape sequences in a path", "path,object\n\x1b]0;owned\x07.png,a\n", 2, "no file")
table_case(
    "classes with formulas and markup",
    SOUND.replace("dark\n", "\"=cmd|'/c calc'!A1\"\n").replace("light\n", "<script>/../</script>\n"),
    0,
    "accuracy",
)
table_case("zero bytes of a table", b"", 2, "no column 'path'")


class Evil:
    """What a pickle runs."""

    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def weights_case(name: str, build: Callable[[Path], Any], says: str, suffix: str = ".pt") -> None:
    """Add a case: a weights file."""

    def laid(given: Given) -> list[str]:
        file = given.root / f"w{suffix}"
        build(file)
        return [*sees(given.data()), "--weights", str(file)]

    CASES[name] = laid, 2, says


def torch_save(value: Any, **how: Any) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        import torch

        torch.save(value, path, **how)

    return save


def header(text: str | bytes, size: int | None = None) -> Callable[[Path], Any]:
    raw = text.encode() if isinstance(text, str) else text
    return lambda p: p.write_bytes((len(raw) if size is None else size).to_bytes(8, "little") + raw)


def state(**changes: Any) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        from transfer.backbones.places import bundle_file

        tensors = load_file(bundle_file("glyphnet"))
        tensors = {name: changes.get("make", lambda t: t)(tensor) for name, tensor in tensors.items()}
        save_file(tensors, path)
        if "record" in changes:
            path.with_suffix(".json").write_text(changes["record"])

    return save


NESTED = "[" * 100_000
RECORD = {"input_size": [3, 32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "crop_pct": 1}
weights_case("a pickle that runs a command", lambda p: p.write_bytes(pickle.dumps(Evil())), "is not loaded")
weights_case("the same within a torch file", torch_save({"fc.weight": Evil()}), "unpickling runs code")
weights_case(
    "the same in torch's old format",
    torch_save({"a": Evil()}, _use_new_zipfile_serialization=False),
    "unpickling runs code",
)
weights_case(
    "a pickle called .safetensors", lambda p: p.write_bytes(pickle.dumps(Evil())), "cannot be read", ".safetensors"
)
weights_case("a pickle called .npz", lambda p: np.savez(p, a=np.array([Evil()], object)), "w.npz", ".npz")
weights_case("weights of zero bytes", lambda p: p.write_bytes(b""), "cannot be read")
weights_case("random bytes as weights", lambda p: p.write_bytes(np.random.default_rng(0).bytes(9999)), "w.pt")
weights_case("a header of 2^63 bytes", header("{}", 2**63), "cannot be read", ".safetensors")
weights_case("a header that nests 100,000 deep", header('{"a":' + NESTED), "cannot be read", ".safetensors")
weights_case(
    "a tensor of 2^60 numbers",
    header('{"a":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}'),
    "cannot be read",
    ".safetensors",
)
weights_case(
    "weights of other shapes", state(make=lambda t: t[:1].clone() if t.ndim else t), "of another shape", ".safetensors"
)
weights_case(
    "weights that are NaN",
    state(make=lambda t: t * float("nan") if t.is_floating_point() else t),
    "not finite",
    ".safetensors",
)
weights_case("a record that nests 100,000 deep", state(record=NESTED), "no preprocessing record", ".safetensors")
weights_case("a record that is a list", state(record="[]"), "no preprocessing record", ".safetensors")
weights_case(
    "a record of other types",
    state(record=json.dumps(RECORD | {"mean": "abc", "std": None})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record of absurd sizes",
    state(record=json.dumps(RECORD | {"input_size": [3, 10**9, 10**9]})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record with a crop of nothing",
    state(record=json.dumps(RECORD | {"crop_pct": 1e-300})),
    "no preprocessing record",
    ".safetensors",
)
weights_case(
    "a record with NaN",
    state(record=json.dumps(RECORD | {"mean": [float("nan")] * 3})),
    "no preprocessing record",
    ".safetensors",
)


def run_case(name: str, code: int, says: str, **changes: Any) -> None:
    """Add a case: a run with another header."""
    CASES[name] = lambda given: predicts(given.with_header(**changes), given.data() / "dark" / "0.png"), code, says


for backbone in (
    "hf-hub:stranger/model",
    "hf_hub:stranger/model",
    "timm:hf-hub:stranger/model",
    "../../etc/passwd",
    "/etc/passwd",
    "local-dir:/tmp",
    "x" * 100_000,
    "resnet50\x1b[2J",
):
    run_case(f"a run of the backbone {backbone[:40]!r}", 2, "unknown backbone", backbone=backbone)
run_case("a run of a backbone that is a list", 2, "backbone", backbone=["glyphnet"])
run_case("a run of a backbone of 800 million parameters", 2, "does not fit", backbone="convnext_xxlarge")
run_case("the same with stages dropped", 2, "does not fit", backbone="convnext_xxlarge", dropped=1)
run_case("a run of no parts", 2, "model.safetensors", parts={})
run_case("parts that are missing", 2, "model.safetensors", parts=...)
run_case("parts that are a list", 2, "model.safetensors", parts=[1])
run_case("a hidden layer of 10^9", 2, "does not fit", heads__hidden=[10**9])
run_case("a hidden layer of a word", 2, "hidden", heads__hidden=["x"])
run_case("an activation that does not exist", 2, "activation", heads__activation="__class__")
run_case("a setting that does not exist", 2, "did you mean 'dropout'", heads__dropuot=0.1)
run_case("a dropout of NaN", 2, "dropout", heads__dropout=float("nan"))
run_case("a cut above the network", 2, "cut", parts__part__cut=99)
run_case("a cut below it", 2, "cut", parts__part__cut=-1)
run_case("a cut that is a word", 2, "cut", parts__part__cut="x")
run_case("more classes than outputs", 2, "does not fit", parts__part__specs__0__classes=["a", "b", "c"])
run_case("classes that are numbers", 2, "classes", parts__part__specs__0__classes=[1, 2])
run_case("a million classes", 2, "does not fit", parts__part__specs__0__classes=[str(i) for i in range(10**6)])
run_case(
    "two heads of one name",
    2,
    "two heads have one name",
    parts__part__specs=[{"name": "object", "classes": ["a", "b"]}] * 2,
)
run_case("a head with a dot in its name", 2, "does not fit", parts__part__specs__0__name="a.b/../c")
run_case("classes with escape sequences", 0, "u001b", parts__part__specs__0__classes=["\x1b[31m", "\x9b\u202e"])
run_case("a class that is half a letter", 2, "classes", parts__part__specs__0__classes=["\ud83d", "a"])
run_case("preprocessing of absurd sizes", 2, "input_size", preprocessing__input_size=[3, 10**9, 10**9])
run_case("preprocessing of other types", 2, "mean", preprocessing__mean={"a": 1})
run_case("a header that is no object", 2, "model.safetensors", text="[]")
run_case("a header that is no JSON", 2, "model.safetensors", text="{")
run_case("a header that nests 100,000 deep", 2, "model.safetensors", text=NESTED)
run_case("a header that nests 400 deep", 2, "model.safetensors", text='{"format":' + "[" * 400 + "]" * 400 + "}")
run_case("a number of 10,000 digits", 2, "model.safetensors", text='{"format": ' + "9" * 10_000 + "}")


def file_case(
    name: str, build: Callable[[Path], Any], says: str, file: str = "model.safetensors", code: int = 2
) -> None:
    """Add a case: a run of which one file is another."""

    def laid(given: Given) -> list[str]:
        path = given.run() / file
        path.unlink()
        build(path)
        return (
            ["evaluate", str(path.parent), "--device", "cpu"]
            if file.endswith("csv")
            else predicts(path.parent, given.data() / "dark" / "0.png")
        )

    CASES[name] = laid, code, says


file_case("a run that is a pickle", lambda p: p.write_bytes(pickle.dumps(Evil())), "is not a readable safetensors file")
file_case("a run of zero bytes", lambda p: p.write_bytes(b""), "is not a readable safetensors file")
file_case("a run that is a pipe", os.mkfifo, "no run at")
file_case("a run that is a folder", lambda p: p.mkdir(), "no run at")
LISTED = "predictions.csv"
file_case("predictions of zero bytes", lambda p: p.write_bytes(b""), "give --data", LISTED)
file_case("predictions that are no text", lambda p: p.write_bytes(b"\xff\xfe\x00path"), "give --data", LISTED)
file_case("predictions without paths", lambda p: p.write_text("a,b\n1,2\n"), "predictions.csv", LISTED)
file_case(
    "predictions of a broken table",
    lambda p: p.write_text("path,object,object_predicted,object_probability\nx\n"),
    "bad image x",
    LISTED,
)
file_case(
    "predictions of a field without end",
    lambda p: p.write_text('path,object\n"' + "x" * 2**20),
    "predictions.csv",
    LISTED,
)
file_case(
    "predictions of a number that is none",
    lambda p: p.write_text("path,age,age_predicted\nx.png,old,1\n"),
    "predictions.csv",
    LISTED,
)


def resume_case(name: str, file: str, content: bytes, says: str) -> None:
    """Add a case: a search that is resumed over a damaged file."""

    def laid(given: Given) -> list[str]:
        out = given.root.parent / "out"
        out.mkdir()
        argv = [
            "search",
            "--data",
            str(given.data()),
            "--out",
            str(out),
            "--trials",
            "1",
            "--device",
            "cpu",
            "--resume",
        ]
        if file != "config.json":
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(argv) == 0
        (out / file).write_bytes(content)
        return argv

    CASES[name] = laid, 2, says


for said, content in (
    ("nothing", b""),
    ("words", b"hello"),
    ("a list", b"[]"),
    ("no text", b"\xff\xfe"),
    ("NaN", b'{"run": NaN}'),
    ("a number of 10,000 digits", b"9" * 10_000),
    ("depth", NESTED.encode()),
    ("depth of 400", b'{"a":' * 400 + b"1" + b"}" * 400),
):
    resume_case(f"config.json of {said}", "config.json", content, "config.json" if said != "NaN" else "run")
for said, content in (
    ("words", b"hello\n"),
    ("no text", b"\xff\xfe\n"),
    ("depth", NESTED.encode() + b"\n"),
    ("other values", b'{"trial": "x"}\n'),
    ("a list", b"[]\n"),
):
    resume_case(f"metrics.jsonl of {said}", "metrics.jsonl", content, "metrics.jsonl")


def cache_case(name: str, build: Callable[[Path], Any], says: str, *action: str, code: int = 0) -> None:
    """Add a case: what lies in the cache."""

    def laid(given: Given) -> list[str]:
        cache = given.root.parent / "cache"
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(sees(given.data())) == 0
        for segment in cache.rglob("*.rows"):
            build(segment)
        return ["cache", *action] if action else sees(given.root / "data")

    CASES[name] = laid, code, says


def pipe(segment: Path) -> None:
    os.mkfifo(segment.with_name(f"{segment.stem}x.rows"))


for action in (("ls",), ("verify",), ()):
    end = {"ls": "kept", "verify": "damaged"}.get("".join(action), "accuracy")
    how = " ".join(action) or "train"
    cache_case(f"a cache of zero bytes: {how}", lambda p: p.write_bytes(b""), end, *action)
    cache_case(f"a cache of other bytes: {how}", lambda p: p.write_bytes(os.urandom(p.stat().st_size)), end, *action)
    cache_case(f"a cache cut short: {how}", lambda p: p.write_bytes(p.read_bytes()[:-7]), end, *action)
    cache_case(
        f"a cache that says it nests: {how}",
        lambda p: (p.parent / "about.json").write_text(NESTED),
        "sound" if action == ("verify",) else end,
        *action,
    )
    cache_case(f"a pipe in the cache: {how}", pipe, "sound" if action == ("verify",) else end, *action)


@case("a cache that is a file", 0, "accuracy")
def _cache_file(given: Given) -> list[str]:
    (given.root.parent / "cache").write_text("")
    return sees(given.data())


def trains(name: str) -> bool:
    """Whether a case gets as far as to learn something, which takes its time; the others are told at once."""
    return (CASES[name][1] == 0 and not name.startswith("predict")) or "jsonl" in name


@pytest.fixture
def fed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., tuple[int, str, str]]:
    """Feed a case to a command, in a home of its own; return its exit code, its one line and its output.

    Whatever comes of it, it tells no traceback and no raw control character, writes into its own places alone and
    reaches for no network.
    """
    for variable, place in (("TRANSFER_CACHE", "cache"), ("HOME", "home"), ("TMPDIR", "tmp")):
        monkeypatch.setenv(variable, str(tmp_path / place))
    for place in ("home", "tmp", "here"):
        (tmp_path / place).mkdir()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it reached for the network"))

    def feed(name: str, command: Sequence[str] = ()) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path / "here")
        argv = CASES[name][0](Given(tmp_path / "given", run))
        monkeypatch.chdir(tmp_path / "here")
        before, sound = tree(tmp_path), tree(run.parent)
        capfd.readouterr()
        if command:
            argv = [*command, *argv[1:]]
        if argv[0] in ("train", *OTHERS):
            argv = [*argv, "--out", str(tmp_path / "out")]
        code = main(argv)
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if line.strip()]
        assert "Traceback" not in out + err
        assert not RAW.search(out + err), "raw control characters"
        if code == 2:
            assert len(lines) == 1
            assert lines[0].startswith("transfer: ")
            assert len(lines[0]) < 2000
        ours = (str(tmp_path / "out"), str(tmp_path / "cache"))
        after = tree(tmp_path)
        changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
        assert not [path for path in changed if not path.startswith(ours)]
        assert tree(run.parent) == sound
        return code, lines[0] if code == 2 else "", out

    return feed


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of any bytes")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if trains(n) else n for n in CASES])
def test_a_file_from_a_stranger(name, fed):
    _, code, says = CASES[name]
    found, line, out = fed(name)
    assert found == code
    assert says in (line if code == 2 else out)


OTHERS: dict[str, list[str]] = {
    "advise": [],
    "compare": ["--policies", "linear_probe,partial:1", "--epochs", "1"],
    "search": ["--trials", "2", "--epochs", "1"],
    "lr-find": ["--steps", "20"],
    "adapt": ["--source", "plain", "--target", "dark", "--method", "source_only"],
}


BUILDERS = {"image_case", "table_case", "weights_case", "_deep", "_cycle", "_disk", "_mesh", "_names"}


def others() -> Iterator[Any]:
    """Yield what `train` is to read for each other command that reads it too; all but one in five are slow."""
    read = [name for name, (build, *_) in CASES.items() if build.__qualname__.partition(".")[0] in BUILDERS]
    assert len(read) > 50
    for (number, name), (place, command) in itertools.product(enumerate(read), enumerate(OTHERS)):
        quick = number % len(OTHERS) == place and not trains(name)
        yield pytest.param(command, name, marks=() if quick else pytest.mark.slow)


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of any bytes")
@pytest.mark.parametrize(("command", "name"), list(others()))
def test_other_commands_take_it_as_train_does(command, name, fed):
    """`adapt` may ask for domains first, which these sets lack."""
    _, code, says = CASES[name]
    found, line, _ = fed(name, [command, *OTHERS[command]])
    if command == "adapt":
        assert found == 2
    else:
        assert found == code
        assert code != 2 or says in line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="names of any bytes")
def test_names_of_every_kind_come_back_as_they_were(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = folder(tmp_path / "data", STRANGE, 5)
    assert main([*sees(data), "--out", str(tmp_path / "run")]) == 0
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["object"] for row in rows} == set(STRANGE)
    assert all(os.path.isfile(row["path"]) and Path(row["path"]).parent.name == row["object"] for row in rows)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu", "--out", str(tmp_path / "e.json")]) == 0
    images = [str(data / name / "0.png") for name in STRANGE]
    for form in ("json", "csv"):
        out = tmp_path / f"p.{form}"
        argv = ["predict", str(tmp_path / "run"), "--device", "cpu", "--format", form, "--out", str(out), *images]
        assert main(argv) == 0
        with out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            read = [json.loads(line) for line in file] if form == "json" else list(csv.DictReader(file))
        assert [row["path"] for row in read] == images
        assert {row["object"] for row in read} <= set(STRANGE)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), "--device", "cpu", *images]) == 0
    text = capsys.readouterr().out
    assert not RAW.search(text)
    assert [json.loads(line)["path"] for line in text.splitlines()] == images
