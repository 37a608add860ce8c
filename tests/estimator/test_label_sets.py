import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import cross_val_score

from transfer.errors import TransferError
from transfer.estimator.label_sets import has_several_labels, read_label_matrix, to_indicators


@pytest.fixture
def matrix(images):
    """Columns: red, striped."""
    return np.stack([images.object == images.objects.index("red"), images.domain == 1], 1).astype(int)


@pytest.fixture
def sets(images, matrix):
    return [{name for name, shown in zip(("red", "striped"), row, strict=True) if shown} for row in matrix]


def test_an_indicator_matrix_is_fitted_and_predicted(classifier, pixels, matrix):
    fitted = classifier().fit(pixels, matrix)
    assert fitted.classes_.tolist() == [0, 1]
    p, called = fitted.predict_proba(pixels), fitted.predict(pixels)
    assert (p.shape, p.dtype, called.shape) == ((48, 2), np.float64, (48, 2))
    assert set(np.unique(called)) <= {0, 1}
    assert f1_score(matrix, called, average="micro") > 0.9
    assert fitted.score(pixels, matrix) == accuracy_score(matrix, called)


def test_sets_of_names_are_the_same_as_their_matrix(classifier, pixels, matrix, sets):
    by_sets = classifier().fit(pixels, sets)
    assert by_sets.classes_.tolist() == ["red", "striped"]
    np.testing.assert_array_equal(by_sets.predict_proba(pixels), classifier().fit(pixels, matrix).predict_proba(pixels))
    assert by_sets.score(pixels, sets) == by_sets.score(pixels, [tuple(each) for each in sets])
    with pytest.raises(ValueError, match="labels that were not fitted: flat"):
        by_sets.score(pixels, [{"flat"}] * 48)


def test_unknown_labels_are_masked(classifier, pixels, matrix):
    hidden = matrix.astype(float)
    hidden[::5, 0], hidden[1::7] = np.nan, -1
    fitted = classifier().fit(pixels, hidden)
    assert f1_score(matrix, fitted.predict(pixels), average="micro") > 0.85
    with pytest.raises(ValueError, match="unknown labels"):
        fitted.score(pixels, hidden)


def test_it_is_cross_validated(classifier, pixels, matrix):
    order = np.random.default_rng(0).permutation(48)
    assert np.mean(cross_val_score(classifier(), pixels[order], matrix[order], cv=3)) > 0.5


def test_domains_have_a_head_and_targets_are_refused(classifier, images, pixels, matrix):
    names = np.array(images.domains)[images.domain]
    fitted = classifier().fit(pixels, matrix, sample_domain=names)
    assert (fitted.predict_domain(pixels) == names).mean() > 0.9
    with pytest.raises(ValueError, match="adaptation needs one class an image"):
        classifier().fit(pixels, matrix, sample_domain=np.where(images.domain == 1, -2, 1))


def test_sets_of_likely_classes_are_refused(classifier, pixels, matrix):
    with pytest.raises(ValueError, match="no prediction sets of several labels"):
        classifier().fit(pixels, matrix).predict_set(pixels)
    with pytest.raises(ValueError, match="several labels an image have none"):
        classifier().fit(pixels, matrix).score_unknown(pixels)


def test_names_of_columns_are_the_labels():
    pandas = pytest.importorskip("pandas")
    classes, target = read_label_matrix(pandas.DataFrame({"red": [1, 0], "round": [0, 1]}))
    assert classes.tolist() == ["red", "round"]
    assert target.classes == ("red", "round")


@pytest.mark.parametrize(
    ("y", "several"),
    [
        (np.array([[1, 0], [0, 1]]), True),
        ([[1, 0], [0, 1]], True),
        ([("a", "b"), ()], True),
        ([None, {"a"}], True),
        (["ab", "cd"], False),
        ([0, 1], False),
        (np.array([[1], [0]]), False),
        (None, False),
    ],
)
def test_matrices_and_sets_are_told_from_classes(y, several):
    assert has_several_labels(y) == several


def test_lists_of_zeros_and_ones_are_rows_of_a_matrix_and_other_lists_sets():
    assert read_label_matrix([[1, 0], [0, 1]])[1].values.tolist() == [[1, 0], [0, 1]]
    classes, target = read_label_matrix([["b", "a"], [], None, ["a"]])
    assert classes.tolist() == ["a", "b"]
    assert target.values.tolist() == [[1, 1], [0, 0], [-1, -1], [1, 0]]
    assert to_indicators([["b"], []], classes).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([[2, 0], [0, 1]]), "other values than 1, 0"),
        ([{"a", 1}, {"b"}], "cannot be sorted"),
        ([set(), None], "names no label"),
        ([{"a|b"}, set()], "cannot be the name of a label"),
    ],
)
def test_what_cannot_be_meant_is_refused(y, words):
    with pytest.raises(TransferError, match=words):
        read_label_matrix(y)
