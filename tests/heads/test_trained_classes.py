import numpy as np
import pytest

from transfer.data.splits import Splits
from transfer.data.table import ImageTable, Target
from transfer.heads.trained_classes import (
    describe_untrained,
    drop_untrained_classes,
    find_untrained,
    note_untrained,
    put_trained_first,
)

NAMES = ("a", "b", "c", "d", "e")
OBJECTS = np.array([2, 0, 2, -1, 4, 1, 0])  # the class d has no image
TRAIN, VAL, TEST = np.array([0, 2, 3]), np.array([1, 6]), np.array([4, 5])


def names_of(target):
    return np.array([*target.classes, ""])[target.values].tolist()


@pytest.fixture
def table():
    empty = np.full(len(OBJECTS), "")
    one = Target(np.zeros(len(OBJECTS), np.int64), classes=("all",))
    age = Target(np.arange(len(OBJECTS), dtype=float), "regression")
    sex = Target(np.zeros(len(OBJECTS), np.int64), "binary", ("f", "m"))
    targets = {"object": Target(OBJECTS, classes=NAMES), "domain": one, "age": age, "sex": sex}
    return ImageTable(np.array([f"{i}.png" for i in range(len(OBJECTS))]), targets, empty, empty)


def test_classes_without_a_training_image_come_last_and_those_without_any_go(table):
    ranked = put_trained_first(table, np.array([0, 2, 3, 6]))
    assert ranked.objects == ("a", "c", "b", "e")
    assert names_of(ranked.targets["object"]) == names_of(table.targets["object"])
    for name in ("domain", "age", "sex"):  # both classes of a binary target stay
        assert ranked.targets[name].classes == table.targets[name].classes
        np.testing.assert_array_equal(ranked.targets[name].values, table.targets[name].values)


def test_nothing_changes_where_every_class_is_trained(table):
    target = Target(np.array([1, 0, 2]), classes=("a", "b", "c"))
    assert drop_untrained_classes(target, np.arange(3)) is target
    assert find_untrained(table, np.arange(len(table))) == {"object": ("d",)}


def test_images_of_dropped_classes_are_unknown(table):
    dropped = drop_untrained_classes(table.targets["object"], TRAIN)
    assert dropped.classes == ("c",)
    assert names_of(dropped) == ["c" if name == "c" else "" for name in names_of(table.targets["object"])]


def test_the_note_counts_the_test_and_validation_images(table):
    (note,) = note_untrained(table, Splits(TRAIN, VAL, TEST))
    assert note == (
        "object: 4 of 5 classes have no training image and are never predicted (a, b, d, e); 2 of 2 test images show "
        "such a class, each counts as an error; 2 of 2 validation images show such a class and are left out"
    )
    assert note_untrained(table, Splits(np.array([0, 1, 4, 5]), VAL, np.array([2]))) == [
        "object: 1 of 5 classes have no training image and are never predicted (d)"
    ]
    assert describe_untrained({"object": ("d",)}) == {"untrained": "object d: no training image, so never predicted"}
    assert describe_untrained({}) == {}
