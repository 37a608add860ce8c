"""The test images of a run, from the predictions.csv of a run without a model."""

import csv
from pathlib import Path

import pytest

from transfer.errors import TransferError
from transfer.heads import HeadSpec
from transfer.runs.tested_images import note_training_images, read_tested_images

SPECS = [HeadSpec("object", classes=("blue", "red"))]


def write_run(folder: Path, *rows: tuple[str, str]) -> Path:
    """Write a run of which predictions.csv is all there is; `rows` are paths and true objects."""
    folder.mkdir()
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "object", "object_predicted"), *((*row, "red") for row in rows)])
    return folder


def test_paths_and_true_labels_are_read_in_order(tmp_path: Path) -> None:
    table = read_tested_images([write_run(tmp_path / "run", ("b.png", "red"), ("a.png", "blue"), ("c.png", ""))], SPECS)
    assert table.paths.tolist() == ["b.png", "a.png", "c.png"]
    target = table.targets["object"]
    assert [target.classes[value] if value >= 0 else "" for value in target.values] == ["red", "blue", ""]
    assert not table.targets["domain"].known.any()


def test_runs_of_one_ensemble_have_the_same_test_images_in_any_order(tmp_path: Path) -> None:
    rows = ("a.png", "red"), ("b.png", "blue")
    runs = [write_run(tmp_path / "one", *rows), write_run(tmp_path / "two", *rows[::-1])]
    assert read_tested_images(runs, SPECS).paths.tolist() == ["a.png", "b.png"]
    other = write_run(tmp_path / "three", ("a.png", "red"), ("c.png", "blue"))
    with pytest.raises(TransferError, match=f"{other} and .*one were tested on different images.*--split-seed"):
        read_tested_images([*runs, other], SPECS)


def test_images_beside_the_test_images_may_be_training_images(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *((str(tmp_path / name), "red") for name in ("a.png", "b.png")))
    table = read_tested_images([run], SPECS)
    assert list(note_training_images([run], table)) == []  # its own test images alone
    more = write_run(tmp_path / "more", *((str(tmp_path / name), "red") for name in ("a.png", "b.png", "c.png")))
    (note,) = note_training_images([run, tmp_path / "without"], read_tested_images([more], SPECS))
    assert note.startswith(f"2 of these images are test images of {run}, ")
    assert "the other 1:" in note


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1,2\n",
        b'path,object\n"x',
        b"path,age,age_predicted\nx,old,1\n",
        b"path\n" + b"x" * 2**18,
    ],
)
def test_damaged_predictions_are_one_line(content: bytes, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "predictions.csv").write_bytes(content)
    with pytest.raises(TransferError, match="give --data"):
        read_tested_images([run], SPECS)


def test_a_run_without_predictions_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"no predictions\.csv, which lists the run's test images: give --data"):
        read_tested_images([tmp_path], SPECS)
    with pytest.raises(TransferError, match="trained without test images: give --data"):
        read_tested_images([write_run(tmp_path / "run")], SPECS)
