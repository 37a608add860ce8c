import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from transfer.adaptation.hidden_labels import HiddenLabels, forget_no_classes, hide_labels
from transfer.data.table import ImageTable, Target, make_softmax_target

INK, OIL = 0, 1
DOMAIN = [INK, INK, INK, INK, OIL, OIL, OIL, OIL, OIL]
OBJECT = [0, 2, 2, 0, 2, 1, 3, -1, 0]


def table_of(domain=DOMAIN, obj=OBJECT):
    n = len(obj)
    targets = {
        "object": Target(np.array(obj), classes=("ape", "bee", "cat", "dog")),
        "domain": Target(np.array(domain), classes=("ink", "oil")),
        "hue": Target(np.arange(n) % 3, classes=("red", "blue", "grey")),
        "sharp": Target(np.arange(n) % 2, "binary", ("no", "yes")),
        "age": Target(np.arange(n, dtype=float), "regression"),
    }
    return ImageTable(np.array([f"/{i}" for i in range(n)]), targets, np.full(n, ""), np.full(n, ""), "set")


def test_visible_labels():
    seen, _ = hide_labels(table_of(), "oil", np.array([0, 1, 3]), np.array([5]))
    assert seen.objects == ("ape", "bee", "cat")
    assert seen.object.tolist() == [0, 2, -1, 0, -1, 1, -1, -1, -1]
    assert seen.domain.tolist() == DOMAIN
    assert seen.targets["hue"].classes == ("red", "blue")
    assert seen.targets["hue"].values.tolist() == [0, 1, -1, 0, -1, -1, -1, -1, -1]
    assert seen.targets["sharp"].values.tolist() == [0, 1, -1, 1, -1, -1, -1, -1, -1]
    assert seen.targets["sharp"].classes == ("no", "yes")
    np.testing.assert_array_equal(seen.targets["age"].values, [0, 1, np.nan, 3] + [np.nan] * 5)
    assert table_of().object.tolist() == OBJECT


def test_revealed_labels_index_the_models_classes_and_further_ones():
    seen, truth = hide_labels(table_of(), "oil", np.arange(4), np.array([], int))
    assert seen.objects == ("ape", "cat")
    assert truth.classes == ("ape", "cat", "bee", "dog")
    rows = np.array([8, 4, 5, 6, 7])
    assert truth.reveal(rows).tolist() == [0, 1, 2, 3, -1]
    named = [truth.classes[i] for i in truth.reveal(rows[:4])]
    assert named == [table_of().objects[i] for i in table_of().object[rows[:4]]]
    assert truth.known


def test_notes_on_rows():
    _, truth = hide_labels(table_of(), "oil", np.arange(4), np.array([], int))
    assert truth.notes(np.array([4, 8])) == ()
    assert truth.notes(np.array([7])) == ("no target labels: accuracy on oil is not measured",)
    missing, beyond = truth.notes(np.arange(4, 9))
    assert missing == "1 of 5 test images of oil have no label: not counted"
    assert beyond.startswith("2 of 5 test images of oil show objects without any training label (bee, dog):")
    learnt = hide_labels(table_of(), "oil", np.arange(4), np.array([5, 6]))[1]
    assert len(learnt.notes(np.arange(4, 9))) == 1


def test_a_target_without_a_label():
    _, truth = hide_labels(table_of(obj=[0, 2, 2, 0] + [-1] * 5), "oil", np.arange(4), np.array([], int))
    assert not truth.known
    assert truth.reveal(np.arange(4, 9)).tolist() == [-1] * 5


def test_it_cannot_be_used_by_accident():
    _, truth = hide_labels(table_of(), "oil", np.arange(4), np.array([], int))
    with pytest.raises(ValueError, match="not of oil"):
        truth.reveal(np.array([4, 3]))
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never copied or saved"):
            carry(truth)
    assert np.asarray(truth).dtype == object
    for use in (len, iter, list, lambda t: t[0], lambda t: t + 1):
        with pytest.raises(TypeError):
            use(truth)
    assert repr(truth) == "HiddenLabels(oil)"
    assert {name for name in dir(truth) if not name.startswith("_")} == {"classes", "known", "notes", "reveal"}
    assert {name for name in vars(HiddenLabels) if not name.startswith("_")} == {"reveal", "known", "notes"}


def names_of(target_names, *, few_labels=False):
    """Return the target's classes that are left, and those that were taken for no class; ape and cat are trained."""
    names = ["ape", "cat", *target_names]
    target = make_softmax_target(names)
    table = replace(table_of([INK, INK] + [OIL] * len(target_names), [0] * len(names)), name="set")
    table = replace(table, targets=table.targets | {"object": target})
    rows = np.arange(2, len(names))
    seen, forgotten = forget_no_classes(table, np.arange(2), rows, few_labels=few_labels)
    assert seen.object[:2].tolist() == table.object[:2].tolist()
    return [seen.objects[k] if k >= 0 else "" for k in seen.object[rows]], forgotten


def test_a_made_up_class_folder_is_no_label():
    assert names_of(["unlabeled"] * 3) == (["", "", ""], ("unlabeled",))
    assert names_of(["batch 7"]) == ([""], ("batch 7",))
    assert names_of(["cam1", "cam2"]) == (["", ""], ("cam1", "cam2"))
    assert names_of(["cat", "Unknown"]) == (["cat", ""], ("Unknown",))
    assert names_of(["batch 7", "images"], few_labels=True) == (["batch 7", ""], ("images",))
    assert names_of(["batch 7"], few_labels=True) == (["batch 7"], ())
    assert names_of(["unlabeled"], few_labels=True) == ([""], ("unlabeled",))


def test_classes_that_the_source_has_or_may_lack_are_labels():
    assert names_of(["cat"]) == (["cat"], ())
    assert names_of(["cat", "dog"]) == (["cat", "dog"], ())
    assert names_of(["", ""]) == (["", ""], ())
    assert names_of(["bee", "dog"], few_labels=True) == (["bee", "dog"], ())


def test_the_note_names_what_is_read_as_no_label():
    truth = HiddenLabels(table_of(obj=[0, 2, 2, 0] + [-1] * 5), "oil", ("ape", "cat"), ("unlabeled",))
    (note,) = truth.notes(np.arange(4, 9))
    why = "the source has no class unlabeled, so this is read as no label"
    assert note == f"no target labels: accuracy on oil is not measured ({why})"
