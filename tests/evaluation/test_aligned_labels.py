"""Labels as indices of a run's classes, for a table of four images."""

from pathlib import Path

import numpy as np

from transfer.data.table import ImageTable, make_softmax_target
from transfer.evaluation.aligned_labels import align_labels, format_column_targets, load_test_table
from transfer.heads import HeadSpec
from transfer.runs import checkpoint

SPECS = [HeadSpec("object", "softmax", ("apple", "cup", "dog")), HeadSpec("domain", "softmax", ("art", "photo"))]


def make_table(labels: list[str], domains: list[str]) -> ImageTable:
    targets = {"object": make_softmax_target(labels), "domain": make_softmax_target(domains)}
    empty = np.full(len(labels), "")
    return ImageTable(np.array([f"{i}.png" for i in range(len(labels))]), targets, empty, empty, "four")


def test_classes_take_the_numbers_of_the_run() -> None:
    table = align_labels(make_table(["dog", "cup", "bird", ""], ["photo"] * 4), SPECS)
    assert table.targets["object"].values.tolist() == [2, 1, -1, -1]
    assert table.targets["domain"].values.tolist() == [1, 1, 1, 1]
    assert [note for note in table.notes if note.startswith("object")] == [
        "object: images of classes that the model does not know (bird) do not count"
    ]


def test_an_unknown_class_of_the_runs_own_test_images_is_an_error() -> None:
    table = align_labels(make_table(["dog", "cup", "bird", ""], ["photo"] * 4), SPECS, own=True)
    assert table.targets["object"].values.tolist() == [2, 1, 3, -1]
    assert table.targets["object"].classes == ("apple", "cup", "dog", "bird")


def test_a_head_without_labels_knows_none() -> None:
    table = make_table(["dog", "cup"], ["", ""])
    assert align_labels(table, SPECS).targets["domain"].values.tolist() == [-1, -1]


def test_further_heads_are_columns() -> None:
    further = [HeadSpec("colour", "softmax", ("red", "blue")), HeadSpec("age", "regression", ())]
    assert format_column_targets([*SPECS, *further]) == ["colour", "age:regression"]


def test_the_test_images_of_a_run_have_its_labels(run: Path) -> None:
    specs = list(checkpoint.load_models(run)[""].heads.specs.values())
    table = load_test_table(run, specs)
    for path, value in zip(table.paths, table.targets["object"].values, strict=True):
        assert specs[0].classes[value] == Path(path).parent.name
