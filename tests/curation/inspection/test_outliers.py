import numpy as np

from transfer.curation.inspection import outliers
from transfer.curation.inspection.outliers import find_outliers, measure_neighbour_distance


def test_distance_is_the_mean_cosine_distance_to_the_nearest_of_other_groups():
    rng = np.random.default_rng(0)
    features, groups = rng.normal(size=(12, 5)).astype(np.float32), np.array([0, 0, *range(1, 11)])
    centred = features - features.mean(0)
    expected = []
    for i in range(12):
        cosines = [
            centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])
            for j in range(12)
            if groups[j] != groups[i]
        ]
        expected.append(1 - np.mean(sorted(cosines)[-3:]))
    np.testing.assert_allclose(measure_neighbour_distance(features, groups, 3), expected, rtol=1e-5)


def cluster_with_strangers():
    rng = np.random.default_rng(1)
    features = np.repeat(np.eye(2, 8) * 3, 40, 0) + rng.normal(0, 0.1, (80, 8))
    features[[5, 50]] = np.eye(8)[[4, 6]] * 3
    return features.astype(np.float32)


def test_strangers_are_found_the_farthest_first():
    features = cluster_with_strangers()
    groups = np.arange(80)
    (finding,) = find_outliers(features, groups)
    assert sorted(finding.rows) == [5, 50]
    distance = measure_neighbour_distance(features, groups)
    assert distance[finding.rows[0]] >= distance[finding.rows[1]]


def test_copies_of_a_stranger_do_not_hide_it():
    features = cluster_with_strangers()
    features[6:10] = features[5]
    groups = np.arange(80)
    groups[6:10] = 5
    assert {5, 6, 7, 8, 9, 50} == {*next(iter(find_outliers(features, groups))).rows}


def test_few_or_equal_images_have_no_outlier():
    assert list(find_outliers(np.eye(4, dtype=np.float32), np.arange(4))) == []
    assert list(find_outliers(np.ones((20, 3), np.float32), np.arange(20))) == []
    assert list(find_outliers(np.ones((1, 3), np.float32), np.arange(1))) == []


def test_of_many_images_a_fixed_sample_are_the_possible_neighbours(monkeypatch):
    features, groups = cluster_with_strangers(), np.arange(80)
    sample = np.sort(np.random.default_rng(0).permutation(80)[:30])
    x = features - features.mean(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = [1 - np.mean(sorted(x[i] @ x[j] for j in sample if j != i)[-5:]) for i in range(80)]
    monkeypatch.setattr(outliers, "MOST_REFERENCES", 30)
    monkeypatch.setattr(outliers, "_MOST_COSINES", 90)  # three rows at once
    np.testing.assert_allclose(measure_neighbour_distance(features, groups), expected, rtol=1e-4, atol=1e-6)
    (finding,) = find_outliers(features, groups)
    assert {5, 50} <= {*finding.rows}
