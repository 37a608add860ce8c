import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.table import ImageTable, Target, make_softmax_target, natural_key, parse_number, sort_classes


@given(st.lists(st.text(max_size=6)))
def test_softmax_target_gives_each_name_back(names):
    target = make_softmax_target(names)
    assert [target.classes[v] if v >= 0 else "" for v in target.values] == names
    assert sorted(set(names) - {""}) == sorted(target.classes)
    assert target.classes == sort_classes(target.classes)


def test_numbers_in_names_sort_by_size():
    assert sorted(["10", "9", "1b", "1a", "01"], key=natural_key) == ["01", "1a", "1b", "9", "10"]


def test_classes_that_are_numbers_sort_by_value():
    names = ["10", "9", "100", "-3", "-20", "0.5", "1.25", "1.5", "1", "2.0"]
    assert sort_classes(names) == tuple(sorted(names, key=float))
    assert make_softmax_target(names).classes == tuple(sorted(names, key=float))
    assert sort_classes([*names[:3], "x"]) == ("9", "10", "100", "x")
    assert sort_classes(["1.0", "1", "01"]) == sort_classes(["01", "1", "1.0"])


def test_only_plain_decimal_numbers_are_numbers():
    assert [parse_number(name) for name in ("nan", "inf", "1e3", "", ".", "1,5", "True", "\u0663")] == [None] * 8
    assert parse_number("-1.50") == parse_number("-1.5")


def test_known_is_minus_one_or_nan():
    assert Target(np.array([0, -1])).known.tolist() == [True, False]
    assert Target(np.array([0.0, np.nan]), "regression").known.tolist() == [True, False]


def test_take_keeps_classes_and_every_column():
    table = ImageTable(
        np.array(["a", "b", "c"]),
        {"object": make_softmax_target(["x", "y", "x"]), "domain": make_softmax_target(["d", "d", ""])},
        np.array(["train", "", "test"]),
        np.array(["", "g", ""]),
    )
    some = table.take(np.array([2, 1]))
    assert some.paths.tolist() == ["c", "b"]
    assert some.object.tolist() == [0, 1]
    assert some.domain.tolist() == [-1, 0]
    assert some.objects == ("x", "y")
    assert some.split.tolist() == ["test", ""]
    assert some.group.tolist() == ["", "g"]
    assert len(table.take(table.object == 0)) == 2


def test_names_of_thousands_of_digits_have_their_place():
    """int() refuses them."""
    long, longer = "c" + "9" * 5000, "c1" + "0" * 5000
    assert sorted([longer, "c10", long, "c9", "c010"], key=natural_key) == ["c9", "c010", "c10", long, longer]
