"""Hostile inputs give one clear line or a correct result, and no file is written elsewhere."""

import csv
import faulthandler
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from transfer.cli.main import main

from . import caches, pictures, runs, tables, weights
from .cases import CASES, RAW, STRANGE, TRAIN, Workspace, folder, list_tree, train_argv

INPUT_KINDS = caches, pictures, runs, tables, weights  # each adds its cases to CASES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("valid")
    folder(root / "data")
    assert main([*TRAIN, "--data", str(root / "data"), "--out", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Abort with a traceback if a command hangs: a thread that waits for a pipe cannot be ended otherwise."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def trains(name: str) -> bool:
    """Return whether a case gets as far as training, which takes seconds; the others are refused at once."""
    return (CASES[name][1] == 0 and not name.startswith("predict")) or "jsonl" in name


@pytest.fixture
def feed_case(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that gives a case to a command, in a new home folder: exit code, error line and output.

    It checks that the command prints no traceback and no raw control character, writes only into the run folder and
    the cache, and does not use the network.
    """
    for variable, place in (("TRANSFER_CACHE", "cache"), ("HOME", "home"), ("TMPDIR", "tmp")):
        monkeypatch.setenv(variable, str(tmp_path / place))
    for place in ("home", "tmp", "here"):
        (tmp_path / place).mkdir()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it used the network"))

    def feed(name: str, command: Sequence[str] = ()) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path / "here")
        argv = CASES[name][0](Workspace(tmp_path / "workspace", run))
        monkeypatch.chdir(tmp_path / "here")
        before, valid = list_tree(tmp_path), list_tree(run.parent)
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
            assert [line for line in lines if line.startswith("transfer: ")] == lines[-1:]
            assert len(lines) <= 2  # a command that prints data logs what it is about to do beside the error
            assert len(lines[-1]) < 2000
        ours = (str(tmp_path / "out"), str(tmp_path / "cache"))
        after = list_tree(tmp_path)
        changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
        assert not [path for path in changed if not path.startswith(ours)]
        assert list_tree(run.parent) == valid
        return code, lines[-1] if code == 2 else "", out

    return feed


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of any bytes")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if trains(n) else n for n in CASES])
def test_train_and_predict(name, feed_case):
    _, code, message = CASES[name]
    found, line, out = feed_case(name)
    assert found == code
    assert message in (line if code == 2 else out)


OTHERS: dict[str, list[str]] = {
    "advise": [],
    "compare": ["--policies", "linear_probe,partial:1", "--epochs", "1"],
    "search": ["--trials", "2", "--epochs", "1"],
    "lr-find": ["--steps", "20"],
    "adapt": ["--source", "plain", "--target", "dark", "--method", "source_only"],
}


BUILDERS = {"image_case", "table_case", "weights_case", "_deep", "_cycle", "_disk", "_mesh", "_names"}


def others() -> Iterator[Any]:
    """Yield each other command with each input that it reads as `train` does; four in five are marked slow."""
    read = [name for name, (build, *_) in CASES.items() if build.__qualname__.partition(".")[0] in BUILDERS]
    assert len(read) > 50
    for (number, name), (place, command) in itertools.product(enumerate(read), enumerate(OTHERS)):
        quick = number % len(OTHERS) == place and not trains(name)
        yield pytest.param(command, name, marks=() if quick else pytest.mark.slow)


@pytest.mark.skipif(os.name == "nt", reason="pipes, links and names of any bytes")
@pytest.mark.parametrize(("command", "name"), list(others()))
def test_other_commands_treat_it_as_train_does(command, name, feed_case):
    """`adapt` may first refuse the set for its lack of domains."""
    _, code, message = CASES[name]
    found, line, _ = feed_case(name, [command, *OTHERS[command]])
    if command == "adapt":
        assert found == 2
    else:
        assert found == code
        assert code != 2 or message in line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="names of any bytes")
def test_unusual_names_are_read_back_unchanged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = folder(tmp_path / "data", STRANGE, 5)
    assert main([*train_argv(data), "--out", str(tmp_path / "run")]) == 0
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
