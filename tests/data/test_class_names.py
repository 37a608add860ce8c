import csv
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.class_names import describe_matches, find_alike, get_name_key, match_names, merge_spellings
from transfer.data.sets.load import load_table
from transfer.data.table import ImageTable, Target, make_softmax_target

CAFE = "caf\u00e9"


def table_of(objects, domains=None, group=None):
    n = len(objects)
    return ImageTable(
        np.array([f"{i}.png" for i in range(n)]),
        {"object": make_softmax_target(objects), "domain": make_softmax_target(domains or ["all"] * n)},
        np.full(n, ""),
        np.array(group or [""] * n),
    )


def names_of(target):
    return [target.classes[value] if value >= 0 else "" for value in target.values]


@pytest.mark.parametrize(
    "names",
    [
        ("Circle", "circle", "CIRCLE", " circle ", "cir cle", "circle\u00a0", "\ufeffcircle", "cir\u200bcle"),
        (CAFE, unicodedata.normalize("NFD", CAFE), CAFE.upper()),
        ("1", "1.0", "01", "1.", "+1", " 1 ", "1.000"),
        ("0", "-0", "0.0", ".0"),
        ("Straße", "STRASSE"),
        ("living room", "Living  Room", "livingroom"),
    ],
)
def test_spellings_of_one_name_have_one_key(names):
    assert len({get_name_key(name) for name in names}) == 1
    assert find_alike(names) == [list(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("circle", "circles"),
        ("A", "a"),
        ("lot 1 12", "lot 11 2"),
        ("1", "10", "-1", "1.5", "1,0", "1e0", "one"),
        ("m2", "m\u00b2"),
        ("NA", "nan", "null", "None", "0", "True", "False"),
        ("1" + "0" * 40, "1" + "0" * 39 + "1"),
    ],
)
def test_different_names_have_different_keys(names):
    assert len({get_name_key(name) for name in names}) == len(names)
    assert find_alike(names) == []


@given(st.lists(st.sampled_from(["cat", "Cat", "CAT ", "dog", "Dog", "1", "1.0", "bird", ""]), min_size=1, max_size=40))
def test_the_commonest_spelling_wins_and_no_image_changes_its_class(names):
    table = merge_spellings(table_of(names))
    found = names_of(table.targets["object"])
    kind = {"CAT ": "cat", "1.0": "1"}
    for old, new in zip(names, found, strict=True):
        assert kind.get(old, old.lower()) == kind.get(new, new.lower())
        same = [name for name in names if kind.get(name, name.lower()) == kind.get(old, old.lower())]
        assert same.count(new) == max(map(same.count, same))
    assert set(found) - {""} == set(table.objects)
    assert len({kind.get(name, name.lower()) for name in table.objects}) == len(table.objects)
    assert bool(table.notes) == any(
        len({name for name in names if kind.get(name, name.lower()) == each}) > 1 for each in ("cat", "dog", "1")
    )


def test_of_equally_common_spellings_the_tidy_one_wins_whatever_the_order():
    decomposed = unicodedata.normalize("NFD", CAFE)
    for names in ([CAFE, decomposed, "b ", "b"], ["b", "b ", decomposed, CAFE]):
        assert merge_spellings(table_of(names)).objects == ("b", CAFE)


def test_domains_and_groups_are_merged_too_each_with_a_line():
    table = merge_spellings(
        table_of(["a1", "b1", "A1", "b1"], ["Cam1", "Cam1", "cam 1", "cam2"], ["P7", "p7", "", "P7"])
    )
    assert table.domains == ("Cam1", "cam2")
    assert table.domain.tolist() == [0, 0, 0, 1]
    assert table.group.tolist() == ["P7", "P7", "", "P7"]
    assert [note.split(":")[0] for note in table.notes] == ["object", "domain", "group"]
    assert "'A1' (1), 'a1' (1) are 'A1'" in table.notes[0]


def test_letters_keep_their_case_and_a_line_says_so():
    table = merge_spellings(table_of(["A", "a", "B"]))
    assert table.objects == ("A", "a", "B")
    assert table.notes == ("object: 'A' and 'a' are two: the case of single letters is respected",)


def test_numbers_to_predict_are_left_as_they_are():
    table = table_of(["a", "b"])
    age = Target(np.array([1.0, 2.0]), "regression")
    merged = merge_spellings(ImageTable(table.paths, table.targets | {"age": age}, table.split, table.group))
    assert merged.targets["age"].values.tolist() == [1.0, 2.0]
    assert merged.notes == ()


@pytest.mark.parametrize(
    ("files", "objects"),
    [
        (("cam1/Circle/1.png", "cam2/circle/2.png", "cam2/circle/3.png", "cam1/box/4.png"), ("box", "circle")),
        (("Circle/1.png", "Circle/2.png", "circle/3.png", "box/4.png", "box /5.png"), ("box", "Circle")),
        (("a/1.0/1.png", "b/1/2.png", "b/1/3.png", "a/2/4.png"), ("1", "2")),
    ],
)
def test_class_folders_of_one_name_are_one_class(tree, files, objects):
    table = load_table(str(tree(*files)))
    assert table.objects == objects
    assert sum("are one class" in note for note in table.notes) == 1


def test_cells_of_one_name_are_one_class(tree):
    root = tree("1.png", "2.png", "3.png", "4.png", "5.png")
    rows = zip(root.glob("*.png"), ("Circle", "circle", "circle ", "1", "1.0"), strict=True)
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "object"), *((path.name, name) for path, name in rows)])
    table = load_table(str(root))
    assert table.objects == ("1", "circle")
    assert np.bincount(table.object).tolist() == [2, 3]


def test_labels_of_another_set_are_those_of_the_known_class():
    assert match_names(["CIRCLE", "2.0", "star", "Box"], ["box", "Box", "Circle", "2"]) == [2, 3, -1, 1]
    assert match_names(["BOX"], ["box", "Box"]) == [-1]  # either could be meant
    assert describe_matches(["CIRCLE", "star", "box"], ["box", "Circle"]) == "'CIRCLE' is read as 'Circle'"
    assert describe_matches(["box"], ["box"]) == ""


def test_names_that_look_like_missing_values_are_classes(tree):
    names = ("0", "NA", "nan", "None", "null", "True")
    root = tree(*(f"{name}/{i}.png" for i, name in enumerate(names)))
    assert load_table(str(root)).objects == names
    with (root / "labels.csv").open("w", newline="") as file:
        cells = [(f"{name}/{i}.png", name if i else "") for i, name in enumerate(names)]
        csv.writer(file).writerows([("path", "object"), *cells])
    table = load_table(str(root))
    assert table.objects == names[1:]
    assert table.object.tolist() == [-1, 0, 1, 2, 3, 4]


def test_spellings_of_several_labels_are_one_label():
    values = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [-1, 0, 1], [-1, -1, -1]], np.int8)
    table = table_of(["a", "b", "a", "b", "a"])
    tags = Target(values, "multilabel", ("Red", "red", "round"))
    merged = merge_spellings(replace(table, targets=table.targets | {"tags": tags}))
    found = merged.targets["tags"]
    assert found.classes == ("Red", "round")
    assert found.values.tolist() == [[1, 0], [1, 1], [0, 0], [-1, 1], [-1, -1]]
    assert any(note.startswith("tags: names that differ only in case") for note in merged.notes)
