import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer.cli.main import main
from transfer.errors import TransferError
from transfer.runtime.streams import OutputStream, check_output, is_unicode, is_writable, protect_streams

CLASSES = {"日本": (200, 40, 40), "écran": (40, 200, 40)}
TRAIN = ["train", "--backbone", "glyphnet"]
ADAPT = ["adapt", "--backbone", "glyphnet", "--source", "quelle", "--target", "ziel", "--method", "source_only"]


class FullDisk(io.StringIO):
    """A stream that takes `room` characters."""

    room = 5

    def write(self, text):
        if len(self.getvalue()) + len(text) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(text)

    def fileno(self):
        return os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("cp1252", "a é \\u2192 \\U0001f600"), ("ascii", "a \\xe9 \\u2192 \\U0001f600"), ("utf-8", "a é → 😀")],
)
def test_what_the_encoding_lacks_is_escaped(encoding, expected):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    stream = OutputStream(file, "output")
    print("a é → 😀", file=stream)
    stream.flush()
    assert file.buffer.getvalue().decode(encoding) == expected + "\n"
    assert is_unicode(stream) == (encoding == "utf-8")
    assert is_writable(stream)


def test_after_an_error_lines_are_dropped_and_reported_once():
    disk = FullDisk()
    stream = OutputStream(disk, "standard output")
    for line in ("abc\n", "more\n", "d"):
        stream.write(line)
    assert disk.getvalue() == "abc\n"
    assert not is_writable(stream)
    with pytest.raises(TransferError, match="standard output: No space left on device, so lines are missing there"):
        check_output(stream)
    stream.error = BrokenPipeError(32, "Broken pipe")
    check_output(stream)


def test_streams_are_restored(capsys):
    before = sys.stdout, sys.stderr
    with protect_streams():
        print("kept")
        assert isinstance(sys.stdout, OutputStream)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "kept\n"
    check_output(sys.stdout)  # any other stream counts as writable


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A set whose names many encodings lack, and a run trained on it."""
    root, rng = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    for domain in ("quelle", "ziel"):
        for name, colour in CLASSES.items():
            for i in range(10):
                pixels = np.array(colour) + rng.normal(0, 20, (24, 24, 3))
                file = root / "写真" / domain / name / f"{i}→.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    assert main([*TRAIN, str(root / "写真"), "--no-report", "--out", str(root / "run")]) == 0
    return root


def is_saved(folder):
    return all((folder / name).is_file() for name in ("result.json", "model.safetensors", "report.html"))


@pytest.fixture
def printed(monkeypatch):
    """Return a function that runs a command whose output has an encoding, and returns what it printed."""

    def run(words, encoding):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        assert main(words) == 0
        return out.buffer.getvalue().decode(encoding)

    return run


@pytest.mark.parametrize("words", [TRAIN, ADAPT], ids=["train", "adapt"])
def test_a_run_is_saved_with_its_page_whatever_the_encoding(names, printed, tmp_path, words):
    text = printed([*words, "--data", str(names / "写真"), "--out", str(tmp_path / "out")], "cp1252")
    assert "\\u5199\\u771f" in text
    assert is_saved(tmp_path / "out")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_predictions_are_whole_whatever_the_encoding(names, printed, encoding):
    words = ["predict", str(names / "run"), str(names / "写真" / "ziel")]
    rows = [json.loads(line) for line in printed(words, encoding).splitlines()]
    assert {row["object"] for row in rows} == set(CLASSES)
    assert {Path(row["path"]).name for row in rows} == {f"{i}→.png" for i in range(10)}
    assert len(printed([*words, "--format", "csv"], encoding).splitlines()) == 21


def start(folder, words, shell):
    """Run a command in a shell that redirects its streams."""
    line = ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "transfer", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, timeout=600)


@pytest.mark.parametrize("shell", [">&- 2>&-", ">/dev/full", "| head -1"])
def test_a_run_is_saved_with_its_page_whatever_its_output(names, tmp_path, shell):
    done = start(names, [*TRAIN, "写真", "--out", str(tmp_path / "out")], shell)
    assert is_saved(tmp_path / "out"), done.stderr
    full = shell == ">/dev/full"
    assert done.returncode == (2 if full else 0)
    said = "transfer: standard output: No space left on device, so lines are missing there\n" if full else ""
    assert done.stderr.decode().endswith(said)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_predict_ends_quietly_with_its_reader(names):
    piped = start(names, ["predict", "run", "写真/ziel"], "| head -1")
    first, *rest = piped.stderr.decode().splitlines()
    assert first == "predicting with run"
    assert not [line for line in rest if not re.match(r"\d+ images predicted; |next: ", line)]
    assert len(piped.stdout.splitlines()) == 1


def test_a_closed_list_is_one_line(names, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", str(names / "run"), "-"]) == 2
    said = capsys.readouterr().err.splitlines()[1:]
    assert said == ["transfer: '-' reads a list from standard input, which is closed"]
