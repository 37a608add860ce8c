"""What may not be read or written is named in one line, with exit code 2, and nothing is left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from transfer.cli.main import main

pytestmark = pytest.mark.usefixtures("unprivileged")
TRAIN = ["train", "--backbone", "test_resnet", "--random-init", "--image-size", "32", "--device", "cpu"]
Say = Callable[..., str]


@pytest.fixture
def data(images: object, tmp_path: Path) -> Path:
    """A folder of images of our own."""
    from PIL import Image

    for name, colour in {"red": (200, 30, 30), "blue": (30, 30, 200)}.items():
        for i in range(8):
            file = tmp_path / "data" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), tuple(c + i for c in colour)).save(file)
    return tmp_path / "data"


@pytest.fixture
def done(data: Path, tmp_path: Path) -> Path:
    assert main([*TRAIN, "--data", str(data), "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Return a function: what is said where `path` has no permissions, or just those of `mode`."""
    changed: list[tuple[Path, int]] = []

    def say(path: Path, *argv: object, mode: int = 0) -> str:
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)
        capsys.readouterr()
        assert main(list(map(str, argv))) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("transfer: ")
        assert "ermission denied" in line
        path.chmod(changed.pop()[1])
        return line

    yield say
    for path, mode in changed:
        path.chmod(mode)


def test_data(data: Path, tmp_path: Path, refused: Say) -> None:
    train = [*TRAIN, "--data", data, "--out", tmp_path / "run"]
    assert str(data / "red" / "3.png") in refused(data / "red" / "3.png", *train)
    assert str(data / "red") in refused(data / "red", *train)
    assert str(data) in refused(data, *train)
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run(data: Path, done: Path, refused: Say) -> None:
    model = done / "model.safetensors"
    assert str(model) in refused(model, "predict", done, data)
    assert str(model) in refused(done, "evaluate", done)
    assert str(done) in refused(done, "report", done)
    assert str(done) in refused(done / "config.json", *TRAIN, "--data", data, "--out", done, "--resume")
    assert str(done) in refused(done, *TRAIN, "--data", data, "--out", done, "--resume")
    assert str(data / "red") in refused(data / "red", "predict", done, data)  # not all others as if that were all
    assert str(data / "red") in refused(data / "red", "predict", done, data, mode=0o444)


def test_where_something_is_to_be_written(data: Path, done: Path, tmp_path: Path, refused: Say) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    assert str(inside) in refused(inside, *TRAIN, "--data", data, "--out", inside / "run", mode=0o500)
    assert str(inside) in refused(inside, "export", done, "--format", "safetensors", "--out", inside / "a", mode=0o500)
    assert "report.html" in refused(done, "report", done, mode=0o500)
    assert list(inside.iterdir()) == []
