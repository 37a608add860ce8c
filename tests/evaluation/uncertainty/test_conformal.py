import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.errors import TransferError
from transfer.evaluation.uncertainty.conformal import (
    MIN_CLASS_ROWS,
    PredictionSets,
    compute_quantile,
    measure_sets,
    pair_labels,
    pair_probabilities,
)


def drawn(n: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (n, classes) and labels; the likeliest class is often, but not always, the true one."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += sharpness
    e = np.exp(logits)
    return e / e.sum(1, keepdims=True), labels


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_is_the_smallest_that_enough_scores_reach(scores, coverage):
    found = compute_quantile(np.array(scores), coverage)
    n = len(scores)
    enough = [s for s in sorted(scores) if sum(t <= s for t in scores) >= coverage * (n + 1) - 1e-6]
    assert found == (enough[0] if enough else 1.0)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_new_images_are_covered_as_often_as_asked(coverage):
    """Over many draws of 99 images to calibrate on, the coverage of 200 others is the one asked for."""
    covered = []
    for seed in range(200):
        p, y = drawn(299, 4, seed, sharpness=0.0)  # no better than chance, so that the likeliest class adds nothing
        sets = PredictionSets.from_predictions(p[:99], y[:99])
        members = 1 - p[99:] <= sets.compute_thresholds(coverage)
        covered.append(members[np.arange(200), y[99:]].mean())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.012)


def test_a_frequent_class_is_covered_on_its_own():
    """One class is predicted badly: with a threshold of all classes it would be covered less often than asked."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=4000)
    right = np.where(labels == 0, rng.beta(20, 1, 4000), rng.beta(1, 2, 4000))
    p = np.where(labels[:, None] == np.arange(2), right[:, None], 1 - right[:, None])
    sets = PredictionSets.from_predictions(p[:2000], labels[:2000])
    assert sets.frequent.all()
    members = sets.predict_sets(p[2000:], 0.9)
    held_out = labels[2000:]
    for k in range(2):
        assert members[held_out == k, k].mean() == pytest.approx(0.9, abs=0.1)
        assert members[held_out == k, k].mean() >= 0.88
    pooled = compute_quantile(sets.scores, 0.9)
    assert (1 - p[2000:][held_out == 1, 1] <= pooled).mean() < 0.85


def test_rare_classes_share_a_threshold_that_frequent_ones_do_not_affect():
    p, y = drawn(600, 3, 0)
    y[:] = np.arange(600) % 3
    few = np.concatenate([np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:20], np.flatnonzero(y == 2)[:30]])
    sets = PredictionSets.from_predictions(p[few], y[few])
    assert sets.frequent.tolist() == [True, False, False]
    thresholds = sets.compute_thresholds(0.8)
    assert thresholds[1] == thresholds[2] == compute_quantile(sets.scores[sets.labels > 0], 0.8)
    assert thresholds[0] == compute_quantile(sets.scores[sets.labels == 0], 0.8)
    assert MIN_CLASS_ROWS > 30


def test_as_many_images_as_a_threshold_of_its_own_takes():
    labels = np.repeat([0, 1, 2], [MIN_CLASS_ROWS - 1, MIN_CLASS_ROWS, MIN_CLASS_ROWS + 1])
    assert PredictionSets(np.zeros(len(labels)), labels, 4).frequent.tolist() == [False, True, True, False]


@given(st.integers(0, 50), st.integers(1, 40), st.floats(0.05, 0.9))
def test_sets_are_never_empty_and_grow_with_coverage(seed, n, coverage):
    p, y = drawn(n + 5, 5, seed)
    y[0] = -1
    sets = PredictionSets.from_predictions(p[:n], y[:n])
    small, large = (sets.predict_sets(p, c) for c in (coverage, coverage + 0.05))
    assert small[np.arange(n + 5), p.argmax(1)].all()
    assert (large | ~small).all()
    for row, values in zip(small, p, strict=True):  # members are the likeliest classes
        assert row[np.argsort(-values, kind="stable")].tolist() == sorted(row.tolist(), reverse=True)


def test_too_few_images_to_tell_give_all_classes():
    p, y = drawn(5, 3, 0)
    assert PredictionSets.from_predictions(p, y).predict_sets(p, 0.9).all()


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, 90.0])
def test_a_coverage_is_a_share(coverage):
    p, y = drawn(5, 3, 0)
    with pytest.raises(TransferError, match=r"above 0 and below 1, such as 0\.9"):
        PredictionSets.from_predictions(p, y).compute_thresholds(coverage)


def test_sets_are_measured_where_the_label_is_known():
    members = np.array([[True, False], [True, True], [False, True]])
    assert measure_sets(members, np.array([0, 1, 0])) == {
        "coverage": pytest.approx(2 / 3),
        "size": pytest.approx(4 / 3),
    }
    assert measure_sets(members, np.array([0, -1, -1])) == {"coverage": 1.0, "size": 1.0}
    assert measure_sets(members, np.full(3, -1)) == {}


def test_pairs():
    objects, domains = np.array([[0.7, 0.2, 0.1]]), np.array([[0.6, 0.4]])
    pairs = pair_probabilities(objects, domains)
    assert pairs.shape == (1, 6)
    for d in range(2):
        for o in range(3):
            assert pairs[0, d * 3 + o] == pytest.approx(objects[0, o] * domains[0, d])
    for o in range(-1, 3):
        for d in range(-1, 2):
            (label,) = pair_labels(np.array([o]), np.array([d]), 3).tolist()
            assert label == (d * 3 + o if o >= 0 and d >= 0 else -1)


def test_a_class_without_a_training_image_is_in_no_set():
    members = np.array([[True, False], [True, True], [False, True]])
    found = measure_sets(members, np.array([0, 2, 5]))
    assert found == {"coverage": pytest.approx(1 / 3), "size": pytest.approx(4 / 3)}
