import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.config.train import DataConfig
from transfer.data.conflicts import CONFLICT, count_conflicts, drop_conflicts
from transfer.data.duplicates import Inspection
from transfer.data.splits import split
from transfer.data.table import ImageTable, make_softmax_target
from transfer.errors import TransferError
from transfer.training.setup import read_images
from transfer.training.train import train


def made(contents, objects, domains=None, given=None):
    """Return table and inspection of rows with these bytes, objects, domains and given splits."""
    n = len(contents)
    table = ImageTable(
        np.array([f"{i}.png" for i in range(n)]),
        {"object": make_softmax_target(objects), "domain": make_softmax_target(domains or ["all"] * n)},
        np.array(given or [""] * n),
        np.full(n, ""),
    )
    return table, Inspection(np.array(list(contents)), np.arange(n).astype(np.uint64), np.full(n, ""))


@given(st.lists(st.tuples(st.sampled_from("pqrs"), st.sampled_from(["a", "b", ""])), min_size=1, max_size=20))
def test_exactly_the_images_under_several_objects_go(rows):
    rows = [*rows, ("t", "a"), ("u", "b")]
    contents, objects = zip(*rows, strict=True)
    expected = [i for i, content in enumerate(contents) if len({o for c, o in rows if c == content and o}) < 2]
    table, inspection = drop_conflicts(*made(contents, objects))
    assert table.paths.tolist() == [f"{i}.png" for i in expected]
    assert inspection.sha256.tolist() == [contents[i] for i in expected]
    assert [int(each.path.removesuffix(".png")) for each in table.left_out] == sorted({*range(len(rows))} - {*expected})
    assert count_conflicts(table) == {"conflicting": len(rows) - len(expected)}


def test_both_places_are_named_with_their_labels():
    table, _ = drop_conflicts(*made("pqpr", ["a", "a", "b", "b"]))
    assert table.notes == (
        "2 images have conflicting labels, byte for byte the same (0.png is a; 2.png is b): "
        "neither trained on nor tested on",
    )
    assert [tuple(each) for each in table.left_out] == [
        ("0.png", CONFLICT, "0.png is a; 2.png is b"),
        ("2.png", CONFLICT, "0.png is a; 2.png is b"),
    ]


def test_labels_of_test_images_change_no_training_row():
    """Whether a test label contradicts or not, what trains and validates is the same."""
    contents = "ppqqrrstuvwxz"
    given = ["train", "test", "test", "test", "test", "train", *["train"] * 4, "val", "val", "test"]
    kept = []
    for objects in ("aaaabbabababa", "ababababababa"):
        objects = [o if s == "test" else "ab"[i % 2] for i, (o, s) in enumerate(zip(objects, given, strict=True))]
        table, inspection = drop_conflicts(*made(contents, objects, given=given))
        parts = split(table, inspection)
        kept.append([sorted(table.paths[rows].tolist()) for rows in (parts.train, parts.val)])
    assert kept[0] == kept[1]


def test_hidden_labels_neither_drop_nor_contradict_an_image():
    domains = ["source", "source", "source", "target", "target", "target", "source", "source"]
    table, _ = drop_conflicts(*made("pqrpssuu", ["a", "a", "b", "b", "a", "b", "a", "b"], domains), hidden="target")
    assert table.paths.tolist() == [f"{i}.png" for i in range(6)]
    assert table.object.tolist() == [0, 0, 1, -1, -1, -1]
    assert count_conflicts(table) == {"conflicting": 5}


def test_a_set_of_nothing_else_is_refused():
    with pytest.raises(TransferError, match=r"each image occurs under several objects \(0.png is a; 1.png is b\)"):
        drop_conflicts(*made("pp", ["a", "b"]))


def test_without_conflict_the_table_is_the_same():
    table, inspection = made("ppq", ["a", "a", "b"], ["x", "y", "x"])
    assert drop_conflicts(table, inspection) == (table, inspection)


def test_images_of_a_folder_are_read_without_conflicts(tree):
    root = tree("box/1.png", "box/2.png", "disc/3.png", "disc/4.png")
    shutil.copy(root / "box" / "1.png", root / "disc" / "wrong.png")
    images = read_images(DataConfig(data=str(root)))
    assert [path[len(str(root)) + 1 :] for path in images.table.paths] == ["box/2.png", "disc/3.png", "disc/4.png"]
    assert any("box/1.png is box; " in note and "wrong.png is disc" in note for note in images.table.notes)
    hidden = read_images(replace(DataConfig(data=str(root)), test=0.3), hidden="all")
    assert hidden.table.object.tolist() == [-1, 0, 1, 1, -1]


def test_a_run_counts_and_lists_them_and_measures_neither(config, folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    right = sorted((data / "plain" / "red").iterdir())[0]
    wrong = next(path for path in sorted((data / "plain").iterdir()) if path.name != "red") / "w.png"
    shutil.copy(right, wrong)
    run = train(config(data=str(data), out=tmp_path / "run"))
    assert run.result["images"]["conflicting"] == 2
    with (tmp_path / "run" / "left_out.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reason"] == CONFLICT]
    assert sorted(row["path"] for row in rows) == sorted([str(right), str(wrong)])
    assert any("have conflicting labels" in note and str(wrong) in note for note in run.result["notes"])
    assert not {str(right), str(wrong)} & {*run.tests[0][0].paths.tolist()}
