from dataclasses import replace

import numpy as np
from scipy.sparse.csgraph import connected_components

from transfer.curation.inspection import duplicate_images
from transfer.curation.inspection.duplicate_images import find_duplicates
from transfer.data.duplicates import Inspection
from transfer.data.table import ImageTable, make_softmax_target


def a_table(objects, splits=None):
    n = len(objects)
    targets = {"object": make_softmax_target(objects), "domain": make_softmax_target(["all"] * n)}
    return ImageTable(np.array([f"{i}.png" for i in range(n)]), targets, np.array(splits or [""] * n), np.full(n, ""))


def an_inspection(files, hashes):
    return Inspection(
        np.array([f"{name}" * 64 for name in files]), np.array(hashes, np.uint64), np.full(len(files), "")
    )


def find(table, inspection, features=None):
    """Without features, those of images with neighbouring hashes are equal."""
    if features is None:
        features = np.stack(
            [np.eye(64, dtype=np.float32)[int(each).bit_length()] for each in inspection.phash & ~np.uint64(3)]
        )
    found = find_duplicates(table, inspection, features)
    return {f.kind: [(item.rows, item.note) for item in f.items] for f in found}


FAR = [0, 0xFF, 0xFF00, 0xFF0000, 0xFF000000, 0xFF00000000]


def test_no_duplicates_are_no_finding():
    assert find(a_table([*"aabbcc"]), an_inspection("012345", FAR)) == {}


def test_groups_of_identical_files_are_listed_the_largest_first():
    found = find(a_table([*"aaabbb"]), an_inspection("001222", [0, 0, 0xFF, 0xFF00, 0xFF00, 0xFF00]))
    assert found == {"duplicates": [((3, 4, 5), "3 images"), ((0, 1), "2 images")]}


def test_near_duplicates_are_listed_apart_from_identical_files():
    found = find(a_table([*"aabb"]), an_inspection("0012", [0, 0, 0xFF00, 0xFF01]))
    assert found == {"duplicates": [((0, 1), "2 images")], "near_duplicates": [((2, 3), "2 images")]}


def test_images_of_one_outline_with_different_features_are_no_near_duplicates():
    table, inspection = a_table([*"aabbcc"]), an_inspection("012345", [0, 1, 2, 1, 0, 3])
    similar = np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1], [1, 0.2, 0]], np.float32)
    assert find(table, inspection, similar)["near_duplicates"] == [((0, 1, 5), "3 images; a / c"), ((2, 3), "2 images")]


def test_identical_files_are_duplicates_whatever_their_features():
    found = find(a_table([*"aa"]), an_inspection("00", [0, 0]), np.ones((2, 3), np.float32))
    assert found == {"duplicates": [((0, 1), "2 images")]}


def test_labels_that_conflict_are_named():
    found = find(a_table([*"abcd"]), an_inspection("0012", [0, 0, 0xFF00, 0xFF01]))
    assert found["conflicting_labels"] == [((0, 1), "2 images; a / b")]
    assert found["near_duplicates_across_classes"] == [((2, 3), "2 images; c / d")]


def test_unknown_labels_conflict_with_none():
    assert set(find(a_table(["a", ""]), an_inspection("00", [0, 0]))) == {"duplicates"}


def test_leaks_are_duplicates_on_both_sides_of_a_given_split():
    table, inspection = (
        a_table([*"aabb"], ["train", "test", "train", ""]),
        an_inspection("0012", [0, 0, 0xFF00, 0xFF01]),
    )
    assert find(table, inspection)["leaks"] == [((0, 1), "2 images; in test and train")]
    assert "leaks" not in find(replace(table, split=np.full(4, "train")), inspection)


def test_blocks_of_a_large_group_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(5, 6))[rng.integers(0, 5, 40)] + rng.normal(0, 0.2, (40, 6))).astype(np.float32)
    x = features - features.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    naive = connected_components(x @ x.T >= duplicate_images.MIN_COSINE)[1]
    for rows in (1, 7, 256):
        monkeypatch.setattr(duplicate_images, "_BLOCK_ROWS", rows)
        found = duplicate_images.split_by_features(np.zeros(40, int), features)
        assert 1 < len(set(naive)) == len(set(found)) == len({*zip(naive, found, strict=True)}) < 40
