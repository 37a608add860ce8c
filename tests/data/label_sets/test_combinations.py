import numpy as np

from transfer.data.conflicts import drop_conflicts
from transfer.data.duplicates import Inspection
from transfer.data.label_sets.cells import read_label_sets
from transfer.data.label_sets.combinations import count_labels, use_label_sets
from transfer.data.table import LABEL_SETS, ImageTable, Target, make_softmax_target


def table_of(tags, objects=None, **further):
    blank = np.full(len(tags), "")
    targets = {
        "object": make_softmax_target(objects or [""] * len(tags)),
        "domain": make_softmax_target(["all"] * len(tags)),
        "tags": read_label_sets("tags", tags, str),
    }
    return ImageTable(np.array([f"/{i}.png" for i in range(len(tags))]), targets | further, blank, blank, "set")


def names_of(table):
    return [*np.array([*table.objects, ""])[table.object]]


def test_sets_of_labels_stand_for_objects() -> None:
    table = use_label_sets(table_of(["round|red", "red|round", "none", "", "red"]))
    assert names_of(table) == ["red|round", "red|round", "none", "", "red"]
    assert table.targets["object"].kind == LABEL_SETS
    assert not table.has_objects


def test_other_classes_are_part_of_the_combination_and_numbers_are_not() -> None:
    sharp = Target(np.array([1, 0, -1]), "binary", ("no", "yes"))
    table = use_label_sets(
        table_of(["red", "red", "red"], sharp=sharp, age=Target(np.array([1.0, 2, 3]), "regression"))
    )
    assert names_of(table) == ["red, yes", "red, no", "red"]


def test_a_table_with_objects_is_unchanged() -> None:
    table = table_of(["red", "none"], ["cup", "pen"])
    assert use_label_sets(table) is table
    assert table.has_objects


def test_images_that_show_each_label_or_object_are_counted() -> None:
    rows = np.array([0, 1, 3])
    assert count_labels(use_label_sets(table_of(["red|round", "red", "round", "none"])), rows) == {"red": 2, "round": 1}
    assert count_labels(table_of(["red", "red", "red", "red"], ["cup", "pen", "cup", "cup"]), rows) == {
        "cup": 2,
        "pen": 1,
    }


def test_copies_of_an_image_with_different_sets_are_dropped() -> None:
    table = use_label_sets(table_of(["red|round", "red", "red", "round"]))
    sha256 = np.array(["a", "a", "b", "b"])
    same = Inspection(np.array(["a", "a", "c", "d"]), np.arange(4, dtype=np.uint64) << np.uint64(40), np.full(4, ""))
    kept, _ = drop_conflicts(table, same)
    assert kept.paths.tolist() == ["/2.png", "/3.png"]
    assert "/0.png is red|round; /1.png is red" in kept.notes[-1]
    order = use_label_sets(table_of(["red|round", "round|red", "red", "red"]))
    kept, _ = drop_conflicts(order, Inspection(sha256, same.phash, same.reason))
    assert len(kept) == 4
