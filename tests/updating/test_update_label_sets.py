"""Updates of runs that predict several labels of an image: the tiny set, its colour and its stripes as labels."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from saved_runs import read_run
from sklearn.metrics import average_precision_score

import transfer
from transfer.config.commands import UpdateConfig
from transfer.config.train import TrainConfig
from transfer.data.corrections import Correction, CorrectionFile
from transfer.errors import TransferError
from transfer.report.console.update_text import update_text
from transfer.report.page import write_report
from transfer.runs.folder import IMAGES_FILE
from transfer.runs.image_list import read_image_list
from transfer.training.train import train
from transfer.updating.update import update

Make = Callable[..., TrainConfig]
LABELS = ("blue", "red", "striped")


def cell_of(file: Path, separator: str = "|") -> str:
    labels = [file.parent.name] * (file.parent.name != "green") + ["striped"] * (file.parents[1].name == "striped")
    return separator.join(labels) or "none"


def write_tags(
    files: list[Path], to: Path, cell: Callable[[Path], str] = cell_of, **more: Callable[[Path], str]
) -> Path:
    with to.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "tags", *more])
        writer.writerows([str(file), cell(file), *(of(file) for of in more.values())] for file in files)
    return to


@pytest.fixture
def few(folder: Path) -> list[Path]:
    """The first 5 of 8 images of each cell."""
    return [file for file in sorted(folder.rglob("*.png")) if int(file.stem) < 5]


@pytest.fixture
def rest(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*.png")) if int(file.stem) >= 5]


@pytest.fixture
def run(config: Make, few: list[Path], tmp_path: Path) -> Path:
    train(config(data=str(write_tags(few, tmp_path / "few.csv")), targets=("tags",), out=tmp_path / "run"))
    return tmp_path / "run"


def shiny(file: Path) -> str:
    """Return the labels of an image, with a new one for some."""
    return f"{cell_of(file)}|shiny".removeprefix("none|") if int(file.stem) % 2 else cell_of(file)


@pytest.mark.parametrize("policy", ["linear_probe", "head2toe", "stage_probes"])
def test_a_solved_update_is_bit_identical_to_a_fresh_run_on_the_union(
    policy: str, config: Make, few: list[Path], rest: list[Path], tmp_path: Path
) -> None:
    out, old = tmp_path / "new", tmp_path / "run"
    settings: dict[str, Any] = {"policy": policy, "targets": ("tags:multilabel",)}
    train(config(data=str(write_tags(few, tmp_path / "few.csv")), out=old, **settings))
    update(UpdateConfig(old, add=str(write_tags(rest, tmp_path / "rest.csv", shiny)), out=out))
    updated = read_run(out, "data")
    del updated["update.json"]
    train(config(data=str(out / IMAGES_FILE), out=tmp_path / "fresh", **settings))
    assert updated == read_run(tmp_path / "fresh", "data")
    before, after = read_image_list(old), read_image_list(out)
    assert after[: len(before)] == before
    assert len(after) == 48


def test_before_and_after_are_average_precisions_on_the_same_images(
    run: Path, rest: list[Path], tmp_path: Path
) -> None:
    add = write_tags(rest, tmp_path / "rest.csv", shiny)
    result = update(UpdateConfig(run, add=str(add), out=tmp_path / "new"))
    assert result["changes"]["new_labels"] == {"tags": ["shiny"]}
    assert any("new labels, which no old image shows unless corrected: tags shiny" in note for note in result["notes"])
    tested = [image for image in read_image_list(tmp_path / "new") if image["split"] == "test"]
    known = {image["path"] for image in read_image_list(run)}
    models = {"before": transfer.load_run(run), "after": transfer.load_run(tmp_path / "new")}
    for part, is_old in (("old_test", True), ("new_test", False)):
        images = [image for image in tested if (image["path"] in known) == is_old]
        for key, model in models.items():
            rows = [dict(row["tags_top"]) for row in model.predict([image["path"] for image in images], top=9)]
            precisions = []
            for label in (*LABELS, "shiny"):
                true = [label in image["tags"].split("|") for image in images]
                if any(true):
                    precisions.append(average_precision_score(true, [row.get(label, 0.0) for row in rows]))
            assert result[part]["tags"][key] == pytest.approx(np.mean(precisions), abs=1e-4)
        assert result[part]["tags"]["n"] == len(images) > 0
    of_new = result["per_class"]["tags"]["shiny"]
    assert of_new["after"] > of_new["before"]
    assert json.loads((tmp_path / "new" / "update.json").read_text())["per_class"] == result["per_class"]
    text = update_text(result)
    assert "tags (mAP), old test images" in text
    assert "tags: labels whose average precision changed" in text
    assert "new labels of tags: shiny" in text
    page = write_report(tmp_path / "new").read_text()
    assert "new labels of tags: shiny" in page
    assert "tags (mAP), new test images" in page


def test_labels_are_read_with_any_separator_and_spelled_as_before(run: Path, rest: list[Path], tmp_path: Path) -> None:
    add = write_tags(rest, tmp_path / "rest.csv", lambda file: cell_of(file, "; ").replace("red", "Red"))
    result = update(UpdateConfig(run, add=str(add), out=tmp_path / "new"))
    assert result["changes"]["new_labels"] == {}
    assert any("tags: 'Red' is read as 'red'" in note for note in result["notes"])
    new = {image["path"]: image["tags"] for image in read_image_list(tmp_path / "new")}
    assert {path: new[path] for path in map(str, rest)} == {str(file): cell_of(file) for file in rest}


def test_an_object_beside_the_labels_is_not_used_and_named(run: Path, rest: list[Path], tmp_path: Path) -> None:
    add = write_tags(rest, tmp_path / "rest.csv", object=lambda file: file.parent.name)
    result = update(UpdateConfig(run, add=str(add), out=tmp_path / "new"))
    assert any("names an object of each image, which" in note for note in result["notes"])
    assert set(result["run"]["test"]) == {"tags"}


def test_images_without_the_column_are_refused(run: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="tags"):
        update(UpdateConfig(run, add=str(folder / "plain"), out=tmp_path / "new"))


def test_corrections_change_label_sets(run: Path, few: list[Path], rest: list[Path], tmp_path: Path) -> None:
    red, striped = few[10], few[-1]
    cells = {red: "red|?striped", striped: "striped|red", rest[0]: "blue"}
    table = write_tags([*cells], tmp_path / "corrections.csv", cells.__getitem__)
    result = update(UpdateConfig(run, corrections=table, out=tmp_path / "new"))
    assert result["changes"]["corrected"] == [
        {"path": str(red), "column": "tags", "before": "red", "after": "?striped|red"}
    ]  # the other has the same labels in another order
    listed = {image["path"]: image["tags"] for image in read_image_list(tmp_path / "new")}
    assert listed[str(striped)] == "red|striped"
    assert listed[str(red)] == "red|?striped"
    assert listed[str(rest[0])] == "blue"


def test_decisions_on_objects_are_refused(run: Path, few: list[Path], tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    CorrectionFile(file).append(Correction(str(few[0]), "0" * 64, "", "red", "2026-11-30T00:00:00Z", "relabel"))
    with pytest.raises(TransferError, match=r"decisions on the object .* give a CSV file with columns path,tags$"):
        update(UpdateConfig(run, corrections=file, out=tmp_path / "new"))


def test_the_same_image_under_other_labels_is_a_conflict(
    run: Path, few: list[Path], rest: list[Path], tmp_path: Path
) -> None:
    add = write_tags(
        [few[0], few[1], rest[0]], tmp_path / "add.csv", lambda file: "red" if file == few[0] else cell_of(file)
    )
    result = update(UpdateConfig(run, add=str(add), out=tmp_path / "new"))
    assert result["changes"]["conflicting"] == result["changes"]["known"] == 1
    assert result["run"]["images"]["conflicting"] == 2
    assert sum(image["path"] == str(few[0]) for image in read_image_list(tmp_path / "new")) == 0


def test_new_images_are_split_by_each_label(config: Make, folder: Path, few: list[Path], tmp_path: Path) -> None:
    train(config(data=str(write_tags(few, tmp_path / "few.csv")), targets=("tags",), out=tmp_path / "run", test=0.25))
    rest = [file for file in sorted(folder.rglob("*.png")) if int(file.stem) >= 5]
    update(UpdateConfig(tmp_path / "run", add=str(write_tags(rest, tmp_path / "rest.csv")), out=tmp_path / "new"))
    tested = [image for image in read_image_list(tmp_path / "new")[len(few) :] if image["split"] == "test"]
    shown = {label: sum(label in image["tags"].split("|") for image in tested) for label in LABELS}
    assert all(abs(shown[label] - 0.25 * count) <= 1 for label, count in (("blue", 6), ("red", 6), ("striped", 9)))


@pytest.mark.parametrize("policy", ["partial:1", "full"])
def test_a_trained_run_starts_from_the_old_weights(
    policy: str, config: Make, few: list[Path], rest: list[Path], tmp_path: Path
) -> None:
    data = write_tags(few, tmp_path / "few.csv")
    train(config(data=str(data), targets=("tags",), out=tmp_path / "run", policy=policy, epochs=9))
    add = write_tags(rest, tmp_path / "rest.csv", shiny)
    result = update(UpdateConfig(tmp_path / "run", add=str(add), out=tmp_path / "new", max_loss=0.9))
    run = result["run"]
    assert run["policy"]["frozen_unchanged"]
    assert not run["warm_start"]["model"]["old_weights"]
    assert [phase["name"] for phase in run["policy"]["phases"]][:1] == ["probe"]
    assert set(result["per_class"]["tags"]) == {*LABELS, "shiny"}
