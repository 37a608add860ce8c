import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.table import ImageTable, Target, make_softmax_target, natural_key


@given(st.lists(st.text(max_size=6)))
def test_softmax_target_gives_each_name_back(names):
    target = make_softmax_target(names)
    assert [target.classes[v] if v >= 0 else "" for v in target.values] == names
    assert sorted(set(names) - {""}) == sorted(target.classes)
    assert list(target.classes) == sorted(target.classes, key=natural_key)


def test_numbers_in_names_sort_by_size():
    assert sorted(["10", "9", "1b", "1a", "01"], key=natural_key) == ["01", "1a", "1b", "9", "10"]


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
