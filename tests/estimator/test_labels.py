import warnings

import numpy as np
import pytest

from transfer.estimator.labels import read_labels


def test_labels_of_any_type_are_sorted():
    for y in ([3, -1, 3, 10], ["b", "a", "b", "c"], [True, False, True, True], np.array([2, 1, 2, 2], object)):
        labels = read_labels(y, None, 4)
        np.testing.assert_array_equal(labels.classes, np.unique(np.array(y)))
        np.testing.assert_array_equal(labels.classes[labels.object.values], y)
        assert labels.sources == ()
        assert labels.domain.classes == ("one",)


def test_negative_domains_are_targets_whose_labels_are_not_read():
    domain = [1, 1, 0, -2, -1]
    for hidden in ((-1, -1), (7, 9), (0, 1)):
        labels = read_labels([0, 1, 0, *hidden], domain, 5)
        assert labels.classes.tolist() == [0, 1]
        assert labels.object.values.tolist() == [0, 1, 0, -1, -1]
        assert labels.domain.classes == ("0", "1", "target")
        assert labels.domain.values.tolist() == [1, 1, 0, 2, 2]
        assert labels.sources == ("0", "1")


@pytest.mark.parametrize("mask", [None, "", float("nan"), -1])
def test_named_domains_without_a_label_are_targets(mask):
    labels = read_labels(["a", "b", mask, mask], ["amazon", "amazon", "webcam", "dslr"], 4)
    assert labels.classes.tolist() == ["a", "b"]
    assert labels.object.values.tolist() == [0, 1, -1, -1]
    assert labels.domain.classes == ("amazon", "target")
    assert labels.sources == ("amazon",)


def test_domains_with_labels_are_sources():
    labels = read_labels([0, 1, 0], ["x", "y", "y"], 3)
    assert labels.domain.classes == ("x", "y")
    assert labels.sources == ()


@pytest.mark.parametrize(
    ("y", "domain", "message"),
    [
        (None, None, "requires y to be passed"),
        ([0, 1], None, "y has 2 entries for 3 images"),
        ([0, 1, 0], [1, -1], "sample_domain has 2 entries for 3 images"),
        ([0, 0, 0], None, "only one class: 0|only one class: np.int64"),
        ([0, 1, 0], [-1, -1, -2], "every image is of a target domain"),
        (["a", None, "b"], None, "y lacks labels"),
        (["a", "", "b"], None, "y lacks labels"),
        (["a", "b", None], ["x", "x", "x"], "y lacks labels"),
        ([0.5, 1.25, 2.0], None, "continuous"),
        ([0, 1, 0], [0.5, 1.0, 2.0], "give integers"),
        ([0, 1, 0], ["x", "target", "x"], "a domain called 'target' has labels"),
    ],
)
def test_unusable_labels_are_a_value_error(y, domain, message):
    with pytest.raises(ValueError, match=message):
        read_labels(y, domain, 3)


def test_classes_that_differ_only_in_spelling_are_kept_with_a_warning():
    with pytest.warns(UserWarning, match="y: 'Circle', 'circle' differ only in case"):
        labels = read_labels(["Circle", "circle", "box"], None, 3)
    assert labels.classes.tolist() == ["Circle", "box", "circle"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_labels(["circle", "box"], None, 2)
