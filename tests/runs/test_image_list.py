import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transfer.data.sets.load import load_table
from transfer.data.splits import Splits
from transfer.data.table import Target
from transfer.errors import TransferError
from transfer.runs.folder import IMAGES_FILE
from transfer.runs.image_list import list_images, read_image_list, write_image_list

SPLITS = Splits(np.arange(0, 48, 3), np.arange(1, 48, 6), np.arange(2, 48, 3))  # leaves some rows out


def test_a_list_is_a_manifest_of_the_same_images_and_split(images, digests, tmp_path) -> None:
    numbers = np.arange(48) / 3
    numbers[5] = np.nan
    targets = {"n": Target(numbers, "regression"), "odd": Target(np.arange(48) % 2, "binary", ("no", "yes"))}
    table = replace(images, targets=images.targets | targets, group=np.array([f"g{i // 2}" for i in range(48)]))
    listed = list_images(table, SPLITS, digests)
    write_image_list(tmp_path, listed)
    assert read_image_list(tmp_path) == listed
    found = load_table(str(tmp_path / IMAGES_FILE), targets=("n:regression", "odd:binary"))
    rows = np.sort(np.concatenate([SPLITS.train, SPLITS.val, SPLITS.test]))
    expected = table.take(rows)
    assert found.paths.tolist() == expected.paths.tolist()
    assert found.group.tolist() == expected.group.tolist()
    for name, target in expected.targets.items():
        assert np.array_equal(found.targets[name].values, target.values, equal_nan=name == "n")
        assert found.targets[name].classes == target.classes
    for name in ("train", "val", "test"):
        assert rows[found.split == name].tolist() == getattr(SPLITS, name).tolist()
    assert [image["sha256"] for image in listed] == digests[rows].tolist()


def test_an_unknown_label_is_empty(images, digests) -> None:
    values = np.where(np.arange(48) == 3, -1, images.object)
    table = replace(images, targets=images.targets | {"object": replace(images.targets["object"], values=values)})
    listed = list_images(table, SPLITS, digests)
    assert [image["path"] for image in listed if not image["object"]] == [images.paths[3]]
    assert "group" not in listed[0]


def test_a_label_with_a_comma_is_read_as_one_label(images, digests, tmp_path) -> None:
    shown = np.tile(np.array([[1, 0], [0, 1]], np.int8), (24, 1))
    target = Target(shown, "multilabel", ("blue", "red, dark"))
    write_image_list(tmp_path, list_images(replace(images, targets=images.targets | {"tags": target}), SPLITS, digests))
    found = load_table(str(tmp_path / IMAGES_FILE), targets=("tags:multilabel",)).targets["tags"]
    rows = np.sort(np.concatenate([SPLITS.train, SPLITS.val, SPLITS.test]))
    assert found.classes == target.classes
    assert np.array_equal(found.values, shown[rows])


def test_several_labels_of_an_image_stand_between_bars(images, digests) -> None:
    shown = np.tile(np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1]], np.int8), (16, 1))
    table = replace(images, targets=images.targets | {"labels": Target(shown, "multilabel", ("a", "b", "c"))})
    listed = list_images(table, Splits(np.arange(3), np.array([], int), np.array([], int)), digests)
    assert [image["labels"] for image in listed] == ["a|c", "none", ""]


def test_a_name_with_a_comma_a_quote_and_a_line_break_survives(tmp_path) -> None:
    image = {"path": '/a,b"c\nd.png', "split": "train", "sha256": "0" * 64, "object": "x", "domain": ""}
    write_image_list(tmp_path, [image, image | {"more": "1"}])
    assert read_image_list(tmp_path) == [image | {"more": ""}, image | {"more": "1"}]


def test_a_missing_or_damaged_list_is_one_line(tmp_path) -> None:
    with pytest.raises(TransferError, match=r"has no images\.csv, .*: train it again$"):
        read_image_list(tmp_path)
    for text in ("", "path,split\na,train\n", "path,split,sha256,object,domain\na,train\n"):
        (tmp_path / IMAGES_FILE).write_text(text)
        with pytest.raises(TransferError, match=r"is damaged .*: train the run again"):
            read_image_list(tmp_path)


def test_a_run_lists_its_images(config, tmp_path) -> None:
    from transfer.training.train import train

    run = train(config(out=tmp_path / "run", shots=4))
    with (tmp_path / "run" / IMAGES_FILE).open(newline="") as file:
        listed = list(csv.DictReader(file))
    counts = {name: sum(image["split"] == name for image in listed) for name in ("train", "val", "test")}
    assert counts == {name: run.result["images"][name] for name in counts}
    assert counts["train"] + counts["val"] < 36  # --shots leaves some over, which are not listed
    assert [image["path"] for image in listed if image["split"] == "test"] == run.tests[0][0].paths.tolist()
    assert all(Path(image["path"]).parent.name == image["object"] for image in listed)
