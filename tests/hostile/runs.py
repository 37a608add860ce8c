"""Hostile run folders: headers, weights and tables."""

import contextlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer.cli.main import main

from .cases import CASES, NESTED, BadPickle, Workspace, predict_argv


def run_case(name: str, code: int, message: str, **changes: Any) -> None:
    """Add a case: a run with another header."""
    CASES[name] = (
        lambda workspace: predict_argv(workspace.with_header(**changes), workspace.data() / "dark" / "0.png"),
        code,
        message,
    )


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
run_case("a run whose header nests 100,000 deep", 2, "model.safetensors", text=NESTED)
run_case("a run whose header nests 400 deep", 2, "model.safetensors", text='{"format":' + "[" * 400 + "]" * 400 + "}")
run_case("a number of 10,000 digits", 2, "model.safetensors", text='{"format": ' + "9" * 10_000 + "}")


def file_case(
    name: str, build: Callable[[Path], Any], message: str, file: str = "model.safetensors", code: int = 2
) -> None:
    """Add a case: a run with one file replaced."""

    def build_argv(workspace: Workspace) -> list[str]:
        path = workspace.run() / file
        path.unlink()
        build(path)
        return (
            ["evaluate", str(path.parent), "--device", "cpu"]
            if file.endswith("csv")
            else predict_argv(path.parent, workspace.data() / "dark" / "0.png")
        )

    CASES[name] = build_argv, code, message


file_case(
    "a run that is a pickle",
    lambda p: p.write_bytes(pickle.dumps(BadPickle())),
    "is not a readable safetensors file",
)
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


def resume_case(name: str, file: str, content: bytes, message: str) -> None:
    """Add a case: a search that is resumed over a damaged file."""

    def build_argv(workspace: Workspace) -> list[str]:
        out = workspace.root.parent / "out"
        out.mkdir()
        argv = [
            "search",
            "--data",
            str(workspace.data()),
            "--backbone",
            "glyphnet",
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

    CASES[name] = build_argv, 2, message


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
