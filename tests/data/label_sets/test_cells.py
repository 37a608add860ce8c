import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.data.label_sets.cells import (
    check_label_names,
    describe_label_sets,
    find_separator,
    format_label_set,
    read_label_sets,
)
from transfer.errors import TransferError


def read(cells):
    return read_label_sets("tags", cells, lambda row: f"list.csv line {row + 2}")


def test_cells_name_the_labels_that_an_image_shows() -> None:
    target = read(["red | round", "metal", "", "none", "-", "?red|metal", "metal|"])
    assert (target.kind, target.classes, target.values.dtype) == ("multilabel", ("metal", "red", "round"), np.int8)
    assert target.values.tolist() == [
        [0, 1, 1],
        [1, 0, 0],
        [-1, -1, -1],
        [0, 0, 0],
        [0, 0, 0],
        [1, -1, 0],
        [1, 0, 0],
    ]
    assert target.known.tolist() == [True, True, False, True, True, True, True]


@pytest.mark.parametrize(
    ("cells", "separator", "classes"),
    [
        (["a|b", "c"], "|", ("a", "b", "c")),
        (["a;b", "c"], ";", ("a", "b", "c")),
        (["a, b", "c"], ",", ("a", "b", "c")),
        (["a|b, c", "d"], "|", ("a", "b, c", "d")),
        (["a", "c"], "|", ("a", "c")),
    ],
)
def test_the_separator_is_found(cells, separator, classes) -> None:
    assert find_separator(cells) == separator
    assert read(cells).classes == classes


def test_errors_name_column_and_line() -> None:
    with pytest.raises(
        TransferError, match=r"^list.csv line 3: tags is 'None\|red': 'None' stands beside other labels"
    ):
        read(["red", "None|red"])
    with pytest.raises(TransferError, match="the column 'tags' names no label at all"):
        read(["none", ""])


NAMES = st.text(st.characters(codec="ascii", categories=("Lu", "Ll", "Nd")), min_size=1, max_size=5).filter(
    lambda name: name.casefold() != "none"
)


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True), st.integers(1, 8), st.randoms(use_true_random=False))
def test_a_written_set_is_read_again(classes, rows, random) -> None:
    classes = sorted(classes)
    values = np.array([[random.choice([1, 1, 0, -1]) for _ in classes] for _ in range(rows)], np.int8)
    again = read([format_label_set(classes, row) for row in values] + ["|".join(classes)])
    order = [again.classes.index(name) for name in classes]
    assert again.values[:-1, order].tolist() == values.tolist()


def test_one_line_says_what_was_read() -> None:
    line = describe_label_sets("tags", read(["a|b", "none", "none", "", "", "a|?b"]), "separated by '|'")
    start = "tags: 2 labels separated by '|', 0.8 an image; 2 images have none of them"
    assert line == f"{start}; 2 are unlabelled, 1 labelled in part"
    line = describe_label_sets("tags", read(["a|b", "", ""]), "separated by '|'")
    assert line.endswith("; 2 are unlabelled (the cell is empty; 'none' says that an image shows no label)")
    assert describe_label_sets("tags", read(["a", "b"]), "by folders") == "tags: 2 labels by folders, 1.0 an image"


@pytest.mark.parametrize("label", ["a|b", "?a", "None", "-"])
def test_names_that_no_cell_can_hold_are_refused(label) -> None:
    with pytest.raises(TransferError, match=r"X: .* cannot be the name of a label"):
        check_label_names("X", ["a", label])
    check_label_names("X", ["a", "a;b", "a,b"])
