import numpy as np

from transfer.data.table import Target
from transfer.heads import HeadSpec, find_head_kind

SPEC = HeadSpec("object", "softmax", ("ant", "bee"))


def test_labels_of_another_data_set_are_aligned_by_name() -> None:
    kind = find_head_kind("softmax")
    aligned, foreign = kind.align(Target(np.array([2, 0, -1, 1]), "softmax", ("ant", "bee", "wasp")), SPEC)
    assert (aligned.values.tolist(), aligned.classes, foreign) == ([-1, 0, -1, 1], ("ant", "bee"), ["wasp"])


def test_labels_that_are_spelled_otherwise_are_those_of_the_class() -> None:
    spec = HeadSpec("object", "softmax", ("Ant", "bee", "2"))
    given = Target(np.array([0, 1, 2, 3, -1]), "softmax", ("ANT ", "2.0", "Bee", "wasp"))
    aligned, foreign = find_head_kind("softmax").align(given, spec)
    assert (aligned.values.tolist(), aligned.classes, foreign) == ([0, 2, 1, -1, -1], spec.classes, ["wasp"])


def test_numbers_that_stand_for_classes_are_aligned_by_value() -> None:
    spec = HeadSpec("digit", "softmax", ("1", "2.0"))
    given = Target(np.array([2.0, 1.0, 3.0, np.nan]), "regression")
    aligned, foreign = find_head_kind("softmax").align(given, spec)
    assert (aligned.values.tolist(), foreign) == ([1, 0, -1, -1], ["3"])


def test_rows_of_predictions_csv_and_of_predict() -> None:
    kind, target = find_head_kind("softmax"), Target(np.array([1, -1]), "softmax", ("ant", "bee"))
    rows = kind.csv_columns("object", target, np.array([[0.25, 0.75], [0.9, 0.1]]))
    assert rows[0] == {"object": "bee", "object_predicted": "bee", "object_probability": 0.75}
    assert (rows[1]["object"], rows[1]["object_predicted"]) == ("", "ant")
    described = kind.describe(SPEC, np.array([0.25, 0.75]), top=5)
    assert described == {"object": "bee", "object_probability": 0.75, "object_top": [["bee", 0.75], ["ant", 0.25]]}


def test_targets_of_unlabelled_images() -> None:
    assert find_head_kind("softmax").unknown_target(SPEC, 2).values.tolist() == [-1, -1]
    assert np.isnan(find_head_kind("regression").unknown_target(SPEC, 2).values).all()
