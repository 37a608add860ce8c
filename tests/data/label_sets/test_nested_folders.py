from pathlib import Path

import pytest

from transfer.data.label_sets.nested_folders import NESTED, NESTED_TARGET
from transfer.data.sets.load import load_table
from transfer.errors import TransferError


def labels_of(table):
    target = table.targets[NESTED_TARGET]
    return {
        Path(path).name: {label for label, value in zip(target.classes, row, strict=True) if value == 1}
        for path, row in zip(table.paths, target.values, strict=True)
    }


def test_every_folder_above_an_image_is_a_label(tree) -> None:
    table = load_table(str(tree("red/round/1.png", "round/red/2.png", "red/3.png", "none/4.png")), labels=NESTED)
    assert labels_of(table) == {"1.png": {"red", "round"}, "2.png": {"red", "round"}, "3.png": {"red"}, "4.png": set()}
    assert table.domains == ("all",)
    assert not table.has_objects
    assert table.choices[0] == "labels: 2 labels by nested folders, 1.2 an image; 1 image has none of them"


def test_the_first_level_may_be_splits(tree) -> None:
    table = load_table(str(tree("Training/red/1.png", "Training/blue/red/2.png", "test/red/3.png")), labels=NESTED)
    assert dict(zip([Path(p).name for p in table.paths], table.split, strict=True)) == {
        "1.png": "train",
        "2.png": "train",
        "3.png": "test",
    }
    assert labels_of(table)["2.png"] == {"blue", "red"}
    assert any("level 1" in choice for choice in table.choices)


def test_spellings_of_a_label_are_merged(tree) -> None:
    table = load_table(str(tree("Red/1.png", "red/round/2.png", "red/3.png")), labels=NESTED)
    assert labels_of(table) == {"1.png": {"red"}, "2.png": {"red", "round"}, "3.png": {"red"}}
    assert any("'red' (2)" in note and "'Red' (1)" in note for note in table.notes)


def test_images_outside_any_folder_are_named(tree) -> None:
    table = load_table(str(tree("red/1.png", "blue/2.png", "3.png")), labels=NESTED)
    assert [each.path for each in table.left_out] == ["3.png"]
    assert len(table) == 2


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["red/none/1.png", "blue/2.png"], "red/none is 'none' beside labels"),
        (["train/red/1.png", "blue/2.png"], "holds splits .train. beside blue"),
        (["?red/1.png", "blue/2.png"], "cannot be the name of a label"),
        (["1.png", "none/2.png"], "no image in a folder that names a label"),
    ],
)
def test_what_cannot_be_meant_is_refused(tree, names, words) -> None:
    with pytest.raises(TransferError, match=words):
        load_table(str(tree(*names)), labels=NESTED)


def test_further_targets_need_a_table(tree) -> None:
    folder = str(tree("red/1.png", "blue/2.png"))
    with pytest.raises(TransferError, match=r"further targets .age. need a CSV manifest"):
        load_table(folder, targets=["age"], labels=NESTED)
    assert len(load_table(folder, targets=["labels:multilabel"], labels=NESTED)) == 2
