import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from transfer.data.table import Target
from transfer.updating.compared_labels import LabelComparison, compare_labels

RNG = np.random.default_rng(3)
TRUE = np.array([[1, 0, -1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]])
BEFORE, AFTER = RNG.random((2, 8, 3)).round(2)
OLD = np.arange(8) < 5


def naive_map(true: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean of scikit-learn's average precision over the labels that some image shows."""
    of_labels = [(t[t >= 0] == 1, s[t >= 0]) for t, s in zip(true.T, scores.T, strict=True)]
    return float(np.mean([average_precision_score(t, s) for t, s in of_labels if t.any()]))


def test_both_models_are_scored_on_the_same_images() -> None:
    head = LabelComparison(("a", "b", "c"), TRUE, BEFORE, AFTER, OLD)
    for rows in (OLD, ~OLD):
        found = head.compare(rows)
        before, after = (naive_map(TRUE[rows], each[rows]) for each in (BEFORE, AFTER))
        assert (found["before"], found["after"]) == (pytest.approx(before), pytest.approx(after))
        assert found["paired"]["difference"] == pytest.approx(after - before)
        assert found["n"] == found["paired"]["images"] == rows.sum()
        assert found["score"] == "map"


def test_the_interval_is_that_of_a_paired_bootstrap() -> None:
    true = (RNG.random((60, 2)) < 0.4).astype(int)
    after = np.clip(true + RNG.normal(0, 0.5, true.shape), 0, 1)
    before = np.clip(true + RNG.normal(0, 0.8, true.shape), 0, 1)
    interval = LabelComparison(("a", "b"), true, before, after, np.ones(60, bool)).compare(np.ones(60, bool))["paired"][
        "interval"
    ]
    drawn = []
    for _ in range(1000):
        rows = RNG.integers(0, 60, 60)
        drawn.append(naive_map(true[rows], after[rows]) - naive_map(true[rows], before[rows]))
    assert interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=0.03)


def test_each_label_has_its_average_precision() -> None:
    found = LabelComparison(("a", "b", "c"), TRUE, BEFORE, AFTER, OLD).compare_classes()
    assert list(found) == ["a", "b", "c"]
    known = TRUE[:, 2] >= 0
    before, after = (average_precision_score(TRUE[known, 2], each[known, 2]) for each in (BEFORE, AFTER))
    assert found["c"] == {
        "n": 2, "before": pytest.approx(before), "after": pytest.approx(after), "change": pytest.approx(after - before)
    }  # fmt: skip


def test_labels_are_matched_by_name_and_a_new_one_was_never_predicted() -> None:
    target = Target(TRUE, "multilabel", ("c", "new", "a"))
    old_scores = BEFORE[:, :2]  # of a and c
    head = compare_labels(target, ("a", "c"), old_scores, AFTER, OLD)
    assert head.before[:, 0].tolist() == old_scores[:, 1].tolist()
    assert head.before[:, 2].tolist() == old_scores[:, 0].tolist()
    assert not head.before[:, 1].any()
    # Where all scores are equal, average precision is the share of images that show the label.
    assert head.compare_classes()["new"]["before"] == pytest.approx((TRUE[:, 1] == 1).mean())


def test_images_without_any_label_are_left_out_and_a_part_without_a_label_is_empty() -> None:
    true = np.array([[1, 0], [-1, -1], [0, 0], [0, 1]])
    scores = RNG.random((4, 2))
    head = compare_labels(
        Target(true, "multilabel", ("a", "b")), ("a", "b"), scores, scores, np.array([True, True, False, True])
    )
    assert head.true.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert head.old.tolist() == [True, False, True]
    assert head.compare(~head.old) == {}
    assert head.compare(head.old)["paired"]["difference"] == 0.0
