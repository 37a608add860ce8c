"""Metrics are compared with scikit-learn's, on the entries that are known."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from transfer.heads.multilabel.metrics import average_precision, choose_threshold, multilabel_metrics


def draw(seed: int, n: int, labels: int, missing: float = 0.0, levels: int = 0):
    rng = np.random.default_rng(seed)
    true = (rng.random((n, labels)) < rng.uniform(0.1, 0.8, labels)).astype(np.int8)
    scores = np.clip(0.4 * true + rng.random((n, labels)) * 0.6, 0, 1)
    if levels:  # ties
        scores = np.round(scores * levels) / levels
    true[rng.random(true.shape) < missing] = -1
    return true, scores, rng.uniform(0.2, 0.8, labels)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 5), st.sampled_from([0.0, 0.3]), st.sampled_from([0, 4])
)
def test_scores_are_those_of_scikit_learn(seed, n, labels, missing, levels) -> None:
    true, scores, thresholds = draw(seed, n, labels, missing, levels)
    names = [f"l{i}" for i in range(labels)]
    report = multilabel_metrics(true, scores, names, thresholds)
    seen = (true >= 0).any(1)
    assert report["n"] == seen.sum()
    if not seen.any():
        assert set(report) == {"n"}
        return
    precisions, f1s, hits, total = [], [], 0, 0
    for i, name in enumerate(names):
        known = true[:, i] >= 0
        y, called = true[known, i], scores[known, i] >= thresholds[i]
        of_label = report["per_label"][name]
        assert of_label["n"] == (y == 1).sum()
        if (y == 1).any():
            precisions.append(average_precision_score(y, scores[known, i]))
            assert of_label["ap"] == pytest.approx(precisions[-1])
        else:
            assert of_label["ap"] is None
        if (y == 1).any() or called.any():
            f1s.append(f1_score(y, called))
            assert of_label["f1"] == pytest.approx(f1s[-1])
        hits, total = hits + int((called & (y == 1)).sum()), total + int(called.sum() + (y == 1).sum())
    assert report["map"] == pytest.approx(np.mean(precisions) if precisions else 0.0)
    assert report["macro_f1"] == pytest.approx(np.mean(f1s) if f1s else 0.0)
    assert report["micro_f1"] == pytest.approx(2 * hits / max(total, 1))


def test_complete_labels_give_scikit_learns_averages() -> None:
    true, scores, thresholds = draw(3, 200, 6)
    report = multilabel_metrics(true, scores, [*"abcdef"], thresholds)
    called = scores >= thresholds
    assert report["map"] == pytest.approx(average_precision_score(true, scores, average="macro"))
    assert report["micro_f1"] == pytest.approx(f1_score(true, called, average="micro"))
    assert report["macro_f1"] == pytest.approx(f1_score(true, called, average="macro"))


def test_counts_are_the_same_as_repeated_images() -> None:
    true, scores, _ = draw(5, 30, 1, levels=5)
    counts = np.random.default_rng(0).integers(0, 3, (4, 30))
    found = average_precision(true[:, 0] == 1, scores[:, 0], counts)
    for row, value in zip(counts, found, strict=True):
        again = np.repeat(np.arange(30), row)
        assert value == pytest.approx(average_precision_score(true[again, 0], scores[again, 0]))


def test_intervals_contain_the_score_and_shrink_with_images() -> None:
    width = {}
    for n in (50, 800):
        true, scores, thresholds = draw(1, n, 4)
        report = multilabel_metrics(true, scores, [*"abcd"], thresholds)
        for score, (low, high) in report["interval"].items():
            assert low <= report[score] <= high
        width[n] = {score: high - low for score, (low, high) in report["interval"].items()}
    assert width[800]["micro_f1"] < width[50]["micro_f1"] / 2
    assert width[800]["map"] < width[50]["map"]


@given(st.integers(0, 10**6), st.integers(6, 40), st.sampled_from([0, 5]))
def test_no_other_threshold_has_a_higher_f1(seed, n, levels) -> None:
    true, scores, _ = draw(seed, n, 1, levels=levels)
    y, p = true[:, 0] == 1, scores[:, 0]
    threshold = choose_threshold(y, p)
    if y.sum() < 5:
        assert threshold == 0.5
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = max(f1_score(y, p >= t) for t in [*np.unique(p), 2.0])
        assert f1_score(y, p >= threshold) == pytest.approx(best)


def test_of_equal_thresholds_the_one_nearest_to_a_half_is_chosen() -> None:
    y = np.array([True] * 5 + [False] * 5)
    assert choose_threshold(y, np.array([0.9] * 5 + [0.3] * 5)) == pytest.approx(0.6)
