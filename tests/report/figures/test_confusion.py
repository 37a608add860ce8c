import numpy as np

from transfer.heads import metrics
from transfer.report.figures.confusion import MAX_DRAWN_CLASSES, confused_pairs, draw_confusion, sum_confusions


def test_classes_keep_their_names_though_some_never_occur():
    classes = ("a", "never", "b", "c")
    true, said = np.array([0, 0, 2, 2, 3]), np.array([0, 2, 2, 3, 0])
    report = metrics.classification_metrics(true, said, classes)
    names, matrix = sum_confusions([report, report])
    assert names == ["a", "b", "c"]
    naive = [
        [2 * sum((classes[t], classes[s]) == (r, c) for t, s in zip(true, said, strict=True)) for c in names]
        for r in names
    ]
    assert matrix.tolist() == naive
    other = metrics.classification_metrics(np.array([1]), np.array([1]), classes)
    assert sum_confusions([report, other])[0] == ["a", "never", "b", "c"]
    names, matrix = sum_confusions([{"n": 0}])
    assert (names, matrix.shape) == ([], (0, 0))


def test_the_commonest_confusions_come_first():
    matrix = np.array([[5, 3, 0], [1, 9, 0], [0, 4, 4]])
    found = confused_pairs(["a", "b", "c"], matrix)
    assert [(p["true"], p["predicted"], p["count"]) for p in found] == [("c", "b", 4), ("a", "b", 3), ("b", "a", 1)]
    assert found[0]["share"] == 0.5
    assert len(confused_pairs(["a", "b", "c"], matrix, 2)) == 2
    assert confused_pairs(["a"], np.array([[3]])) == []
    assert confused_pairs([], np.zeros((0, 0), int)) == []


def test_the_matrix_is_drawn_with_its_numbers_unless_it_is_too_large():
    svg = draw_confusion("object", ["x & <y>", "$z$"], np.array([[7, 2], [0, 5]]))
    assert "x &amp; &lt;y&gt;" in svg
    assert "$z$" in svg
    for number in (">7<", ">2<", ">5<"):
        assert number in svg
    many = MAX_DRAWN_CLASSES + 1
    assert draw_confusion("object", [str(i) for i in range(many)], np.eye(many, dtype=int)) is None
    assert draw_confusion("object", [], np.zeros((0, 0), int)) is None
