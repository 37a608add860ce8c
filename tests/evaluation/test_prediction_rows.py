import numpy as np
from transfer.evaluation.prediction_rows import prediction_rows

from transfer.data.table import ImageTable, Target, make_softmax_target


def test_a_row_has_the_truth_the_answer_and_how_sure_it_is():
    targets = {
        "object": make_softmax_target(["mug", "", "pen"]),
        "dry": Target(np.array([0, 1, 1]), "binary", ("no", "yes")),
        "age": Target(np.array([1.0, 2.0, 3.5]), "regression"),
    }
    empty = np.full(3, "")
    table = ImageTable(np.array(["a.png", "b.png", "c.png"]), targets, empty, empty, "three")
    answers = {
        "object": np.array([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]),
        "dry": np.array([0.2, 0.9, 0.3]),
        "age": np.array([1.5, 2.0, 3.0]),
    }
    rows = prediction_rows(table, answers)
    assert [row["path"] for row in rows] == ["a.png", "b.png", "c.png"]
    assert [row["object"] for row in rows] == ["mug", "", "pen"]
    assert [row["object_predicted"] for row in rows] == ["mug", "pen", "mug"]
    assert [row["object_probability"] for row in rows] == [0.9, 0.75, 0.6]
    assert [row["dry_predicted"] for row in rows] == ["no", "yes", "no"]
    assert [row["dry_probability"] for row in rows] == [0.8, 0.9, 0.7]
    assert [(row["age"], row["age_predicted"]) for row in rows] == [(1.0, 1.5), (2.0, 2.0), (3.5, 3.0)]
