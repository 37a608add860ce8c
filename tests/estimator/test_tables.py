import numpy as np

from transfer.data.label_sets.combinations import use_label_sets
from transfer.data.table import Target
from transfer.estimator.tables import get_class_names, get_labels, make_image_table

PATHS = np.array(["a.png", "b.png", "c.png"])


def test_what_has_no_target_is_unknown():
    table = make_image_table(PATHS, {"object": Target(np.array([1, -1, 0]), "softmax", ("cat", "dog"))})
    assert table.paths.tolist() == PATHS.tolist()
    assert table.object.tolist() == [1, -1, 0]
    assert table.domain.tolist() == [-1, -1, -1]
    assert make_image_table(PATHS, {}).object.tolist() == [-1, -1, -1]


def test_labels_are_class_names_empty_where_unknown():
    objects = Target(np.array([1, -1, 0]), "softmax", ("cat", "dog"))
    assert get_class_names(objects).tolist() == ["dog", "", "cat"]
    assert get_labels(make_image_table(PATHS, {"object": objects})).tolist() == ["dog", "", "cat"]


def test_without_objects_the_labels_are_the_sets_of_each_image():
    tags = Target(np.array([[1, 0], [0, 1], [-1, 1]], np.int8), "multilabel", ("red", "round"))
    assert get_labels(use_label_sets(make_image_table(PATHS, {"tags": tags}))) is tags
