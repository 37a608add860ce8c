import itertools
import math
import warnings
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from sklearn import metrics as sk

from transfer.heads import metrics

NAMES = tuple("abcdefg")


@st.composite
def labels(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Return true and predicted classes, and how many classes there are; some may never occur."""
    classes = draw(st.integers(2, 7))
    n = draw(st.integers(least, 40))
    column = hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1))
    return draw(column), draw(column), classes


@given(data=labels())
def test_scores_equal_scikit_learns(data: tuple[np.ndarray, np.ndarray, int]) -> None:
    true, predicted, classes = data
    report = metrics.classification_metrics(true, predicted, NAMES[:classes])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted and never occur, a single class
        assert report["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
        recalls = sk.recall_score(true, predicted, labels=np.unique(true), average=None, zero_division=0)
        assert report["balanced_accuracy"] == pytest.approx(recalls.mean())
        if len(np.unique(true)) > 1:
            assert report["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, predicted))
        assert report["macro_f1"] == pytest.approx(sk.f1_score(true, predicted, average="macro", zero_division=0))
        assert report["confusion"] == sk.confusion_matrix(true, predicted, labels=range(classes)).tolist()
        recall = sk.recall_score(true, predicted, labels=range(classes), average=None, zero_division=0)
        precision = sk.precision_score(true, predicted, labels=range(classes), average=None, zero_division=0)
    for i, name in enumerate(NAMES[:classes]):
        support, called = int((true == i).sum()), int((predicted == i).sum())
        if not support and not called:
            assert name not in report["per_class"]
            continue
        assert report["per_class"][name] == {
            "recall": pytest.approx(recall[i]) if support else None,
            "precision": pytest.approx(precision[i]) if called else None,
            "n": support,
        }


@given(data=labels())
def test_confusion_by_counting(data: tuple[np.ndarray, np.ndarray, int]) -> None:
    true, predicted, classes = data
    counts = metrics.confusion_matrix(true, predicted, classes)
    for i in range(classes):
        for j in range(classes):
            assert counts[i, j] == sum(t == i and p == j for t, p in zip(true, predicted, strict=True))


@given(data=labels(), unknown=st.data())
def test_unknown_labels_do_not_count(data: tuple[np.ndarray, np.ndarray, int], unknown: st.DataObject) -> None:
    true, predicted, classes = data
    mask = unknown.draw(hnp.arrays(bool, len(true)))
    partly = np.where(mask, -1, true)
    report = metrics.classification_metrics(partly, predicted, NAMES[:classes])
    if mask.all():
        assert report == {"n": 0}
    else:
        assert report == metrics.classification_metrics(true[~mask], predicted[~mask], NAMES[:classes])
        assert report["n"] == (~mask).sum()


@given(data=labels())
def test_scores_of_a_stack_are_those_of_each(data: tuple[np.ndarray, np.ndarray, int]) -> None:
    true, predicted, classes = data
    one, two = (
        metrics.confusion_matrix(true, predicted, classes),
        metrics.confusion_matrix(predicted, predicted, classes),
    )
    both = metrics.score_confusion(np.stack([one, two]))
    for name in both:
        assert both[name].tolist() == pytest.approx(
            [metrics.score_confusion(one)[name], metrics.score_confusion(two)[name]]
        )


@settings(max_examples=30, deadline=None)
@given(data=labels())
def test_the_interval_contains_the_accuracy_and_is_within_bounds(data: tuple[np.ndarray, np.ndarray, int]) -> None:
    true, predicted, classes = data
    report = metrics.classification_metrics(true, predicted, NAMES[:classes])
    assert set(report["interval"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    low, high = report["interval"]["accuracy"]
    assert low - 1e-6 <= report["accuracy"] <= high + 1e-6
    for low, high in report["interval"].values():
        assert 0 <= low <= high <= 1
        assert (low, high) == (round(low, 6), round(high, 6))  # result.json has no more digits than that


def guesses(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of three classes and guesses of which about three quarters are right."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    return true, np.where(rng.random(n) < 0.75, true, rng.integers(0, 3, n))


def test_the_interval_shrinks_with_the_root_of_n() -> None:
    widths = []
    for n in (50, 200, 800, 3200):
        low, high = metrics.bootstrap_intervals(metrics.confusion_matrix(*guesses(n), 3))["accuracy"]
        widths.append(high - low)
    for wide, narrow in itertools.pairwise(widths):
        assert 1.5 < wide / narrow < 2.7


@pytest.mark.parametrize(("wrong", "value"), [(0, 1.0), (1, 0.0)])
def test_all_correct_or_all_wrong_gives_the_wilson_interval(wrong: int, value: float) -> None:
    true = np.array([0, 1, 2, 1])
    found = metrics.bootstrap_intervals(metrics.confusion_matrix(true, (true + wrong) % 3, 3), level=0.9)
    theirs = binomtest(4 - 4 * wrong, 4).proportion_ci(0.9, method="wilson")
    for low, high in found.values():
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
        assert value in (low, high)


@pytest.mark.parametrize("score", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_the_interval_equals_resampling_images(score: str) -> None:
    true, predicted = guesses(120)
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(1500):
        rows = rng.integers(0, len(true), len(true))
        t, p = true[rows], predicted[rows]
        if score == "accuracy":
            drawn.append((t == p).mean())
        elif score == "balanced_accuracy":
            drawn.append(np.mean([(p[t == c] == c).mean() for c in range(3)]))
        else:
            hits = [2 * ((t == c) & (p == c)).sum() / ((t == c).sum() + (p == c).sum()) for c in range(3)]
            drawn.append(np.mean(hits))
    expected = np.percentile(drawn, [2.5, 97.5])
    assert metrics.bootstrap_intervals(metrics.confusion_matrix(true, predicted, 3))[score] == pytest.approx(
        expected, abs=0.015
    )


def test_many_classes_give_the_same_interval() -> None:
    """More classes than are resampled at once, of which only three occur."""
    counts = metrics.confusion_matrix(*guesses(150), 3)
    large = np.zeros((70, 70), dtype=np.int64)
    large[np.ix_([5, 33, 69], [5, 33, 69])] = counts
    assert large.size > 4096
    for name, ends in metrics.bootstrap_intervals(large).items():
        assert ends == pytest.approx(metrics.bootstrap_intervals(counts)[name], abs=1e-6)


def test_the_level_and_the_seed() -> None:
    counts = metrics.confusion_matrix(*guesses(100), 3)
    low, high = metrics.bootstrap_intervals(counts)["accuracy"]
    lower, higher = metrics.bootstrap_intervals(counts, level=0.99)["accuracy"]
    assert lower < low < high < higher
    assert metrics.bootstrap_intervals(counts) == metrics.bootstrap_intervals(counts, seed=0)
    assert metrics.bootstrap_intervals(counts, seed=1) != metrics.bootstrap_intervals(counts, seed=0)


FINITE = st.floats(-100, 100).map(lambda v: round(v, 3))


@given(pairs=st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=30))
def test_regression_equals_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    true, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    report = metrics.regression_metrics(true, predicted)
    assert report["mae"] == pytest.approx(sk.mean_absolute_error(true, predicted))
    assert report["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(true, predicted)))
    assert report["n"] == len(pairs)
    if np.ptp(true) > 1e-2:
        assert report["r2"] == pytest.approx(sk.r2_score(true, predicted), rel=1e-6, abs=1e-6)


def test_regression_without_some_or_all_targets() -> None:
    true, predicted = np.array([1.0, np.nan, 3.0]), np.array([1.5, 9.0, 3.0])
    assert metrics.regression_metrics(true, predicted) == metrics.regression_metrics(true[[0, 2]], predicted[[0, 2]])
    assert metrics.regression_metrics(np.array([np.nan]), np.array([1.0])) == {"n": 0}
    assert metrics.regression_metrics(np.array([2.0, 2.0]), np.array([1.0, 3.0]))["r2"] == 0.0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_the_wilson_interval_equals_scipys(drawn, level):
    hits, n = drawn
    theirs = binomtest(hits, n).proportion_ci(level, method="wilson")
    width = NormalDist().inv_cdf((1 + level) / 2)
    assert metrics.wilson_interval(hits / n, n, width) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_wilson_interval_is_95_percent_by_default():
    theirs = binomtest(18, 20).proportion_ci(method="wilson")
    assert metrics.wilson_interval(0.9, 20) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
