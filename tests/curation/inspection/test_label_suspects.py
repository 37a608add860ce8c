from dataclasses import replace

import numpy as np
import pytest

from transfer.curation.inspection.label_suspects import find_confused_classes, find_label_suspects, rank_labels
from transfer.data.table import ImageTable, make_softmax_target

CLASSES, EACH = 4, 30


def clusters(seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(CLASSES), EACH)
    return (np.eye(CLASSES, 12)[truth] * 3 + rng.normal(0, spread, (len(truth), 12))).astype(np.float32), truth


def a_table(labels):
    n = len(labels)
    target = replace(make_softmax_target([*"abcd"] * n), values=labels)
    return ImageTable(np.array([f"{i}" for i in range(n)]), {"object": target}, np.full(n, ""), np.full(n, ""))


def flipped(truth, rows):
    labels = truth.copy()
    labels[rows] = (labels[rows] + 1) % CLASSES
    return labels


def test_flipped_labels_come_first_with_the_true_class_suggested():
    features, truth = clusters()
    rows = np.array([3, 40, 77, 100])
    labels = flipped(truth, rows)
    ranking = rank_labels(features, labels)
    assert sorted(ranking.order[:4]) == rows.tolist()
    assert ranking.suspects.tolist() == ranking.order[:4].tolist()
    assert 3 <= ranking.estimated <= 5
    assert ranking.suggested[rows].tolist() == truth[rows].tolist()
    (finding,) = find_label_suspects(a_table(labels), ranking)
    assert [item.suggested for item in finding.items] == ["abcd"[truth[row]] for row in finding.rows]
    assert f"estimates {ranking.estimated} wrong labels" in finding.explanation


def test_correct_labels_are_no_finding():
    features, truth = clusters()
    ranking = rank_labels(features, truth)
    assert sorted(ranking.order) == list(range(len(truth)))
    assert list(find_label_suspects(a_table(truth), ranking)) == []
    assert list(find_confused_classes(a_table(truth), ranking)) == []


def test_copies_with_the_same_wrong_label_do_not_vouch_for_each_other():
    features, truth = clusters()
    features[:6], labels = features[0], truth.copy()
    labels[:6] = 1
    groups = np.arange(len(truth))
    groups[:6] = 0
    assert sorted(rank_labels(features, labels, groups).order[:6]) == [*range(6)]


def test_unlabelled_images_and_rare_classes_are_left_out():
    features, truth = clusters()
    labels = np.where(np.isin(np.arange(len(truth)), [0, 50]), -1, truth)
    labels[truth == 3] = -1
    labels[-2:] = 3  # two labels
    ranking = rank_labels(features, labels)
    assert sorted(ranking.order) == [row for row in range(len(truth)) if labels[row] in (0, 1, 2)]
    assert (ranking.suggested[labels < 0] == -1).all()
    assert ranking.probabilities[[0, 50]].argmax(1).tolist() == truth[[0, 50]].tolist()  # predicted all the same


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0, 0], [-1] * 6, [0, 0, 1, 1, 2, 2]])
def test_without_two_classes_of_enough_labels_there_is_no_ranking(labels):
    assert rank_labels(np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array(labels)) is None


def test_copies_of_two_images_are_no_folds():
    features = np.repeat(np.eye(2, 3, dtype=np.float32), 3, 0)
    assert rank_labels(features, np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int64)) is None


def test_classes_that_look_alike_are_named_with_the_confused_images():
    features, truth = clusters()
    rng = np.random.default_rng(2)
    features[truth == 1] = np.eye(CLASSES, 12)[0] * 3 + rng.normal(0, 0.4, (EACH, 12))
    ranking = rank_labels(features, truth)
    (finding,) = find_confused_classes(a_table(truth), ranking)
    (item,) = finding.items
    predicted = ranking.probabilities.argmax(1)
    confused = np.flatnonzero(predicted != truth)
    assert set(item.rows) <= set(confused.tolist())
    assert item.note == f"a / b: {len(confused)} of 60 confused ({100 * len(confused) / 60:.0f} %)"
