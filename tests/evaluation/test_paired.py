import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

from transfer.evaluation.paired import compare_precision, paired_test

DRAWS = 10_000
RIGHT = hnp.arrays(np.int64, st.shared(st.integers(1, 30), key="n"), elements=st.integers(0, 1))


def runs(wins: int, losses: int, ties: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return two runs: only a is correct `wins` times, only b `losses` times, both or neither on the rest."""
    a = np.array([1] * wins + [0] * losses + [1, 0] * (ties // 2))
    b = np.array([0] * wins + [1] * losses + [1, 0] * (ties // 2))
    order = np.random.default_rng(0).permutation(len(a))
    return a[order], b[order]


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 5), (8, 2), (12, 3), (3, 15), (10, 0), (40, 25)])
def test_one_row_per_image_is_mcnemars_exact_test(wins: int, losses: int) -> None:
    exact = binomtest(wins, wins + losses).pvalue
    result = paired_test(*runs(wins, losses))
    error = 4 * np.sqrt(exact * (1 - exact) / DRAWS) + 2 / DRAWS
    assert result["p"] == pytest.approx(exact, abs=error)
    assert result["difference"] == pytest.approx((wins - losses) / (wins + losses + 20))
    assert result["images"] == wins + losses + 20


@given(a=RIGHT, b=RIGHT)
@settings(max_examples=25, deadline=None)
def test_symmetric(a: np.ndarray, b: np.ndarray) -> None:
    one, two = paired_test(a, b, draws=500), paired_test(b, a, draws=500)
    assert one["difference"] == -two["difference"]
    assert one["p"] == two["p"]
    assert one["interval"] == pytest.approx([-end for end in reversed(two["interval"])], abs=1e-6)


@given(a=RIGHT, b=RIGHT)
@settings(max_examples=25, deadline=None)
def test_bounds(a: np.ndarray, b: np.ndarray) -> None:
    result = paired_test(a, b, draws=500)
    low, high = result["interval"]
    assert -1 <= low <= result["difference"] + 1e-6
    assert result["difference"] - 1e-6 <= high <= 1
    assert 1 / 501 <= result["p"] <= 1
    assert result["difference"] == pytest.approx((a - b).mean())


def test_no_difference_at_all() -> None:
    a = np.array([0, 1, 1, 0, 1])
    result = paired_test(a, a)
    assert (result["difference"], result["p"], result["interval"]) == (0.0, 1.0, [0.0, 0.0])


def test_the_p_value_is_never_zero() -> None:
    result = paired_test(np.ones(200), np.zeros(200))
    assert result["p"] == pytest.approx(1 / (DRAWS + 1))


def test_the_interval_equals_resampling_images() -> None:
    a, b = runs(20, 8, 60)
    rng = np.random.default_rng(3)
    drawn = [(a - b)[rng.integers(0, len(a), len(a))].mean() for _ in range(4000)]
    assert paired_test(a, b)["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.012)


def test_an_image_under_several_seeds_is_one_sample() -> None:
    """Repeating the same predictions three times adds no evidence."""
    a, b = runs(8, 2)
    images = np.arange(len(a))
    once, thrice = paired_test(a, b, images), paired_test(np.tile(a, 3), np.tile(b, 3), np.tile(images, 3))
    assert thrice["p"] == pytest.approx(once["p"], abs=0.01)
    assert thrice["difference"] == pytest.approx(once["difference"])
    assert thrice["interval"] == pytest.approx(once["interval"], abs=0.01)
    assert thrice["images"] == once["images"] == len(a)
    assert paired_test(np.tile(a, 3), np.tile(b, 3))["p"] < 0.2 * once["p"]  # as if they were different images


def test_clusters_against_all_sign_flips() -> None:
    """So few images that all sign flips can be enumerated; each has one or several rows."""
    rng = np.random.default_rng(1)
    images = np.repeat(np.array(["a", "b", "c", "d", "e", "f", "g"]), [1, 2, 3, 1, 4, 2, 3])
    a, b = (rng.random(len(images)) < 0.8).astype(int), (rng.random(len(images)) < 0.4).astype(int)
    delta = [sum(int(a[i]) - int(b[i]) for i in range(len(images)) if images[i] == name) for name in np.unique(images)]
    flips = [
        abs(sum(s * d for s, d in zip(signs, delta, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    exact = np.mean([flip >= abs(sum(delta)) for flip in flips])
    result = paired_test(a, b, images)
    assert result["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / DRAWS) + 2 / DRAWS)
    assert result["difference"] == pytest.approx((a - b).mean())
    assert result["images"] == 7


def test_the_order_of_rows_does_not_matter_to_the_difference() -> None:
    a, b = runs(9, 4)
    images = np.arange(len(a)) // 2
    order = np.random.default_rng(2).permutation(len(a))
    one, two = paired_test(a, b, images), paired_test(a[order], b[order], images[order])
    assert one == two


def test_correctness_may_be_boolean() -> None:
    a, b = runs(8, 2)
    assert paired_test(a.astype(bool), b.astype(bool)) == paired_test(a, b)


def test_the_seed() -> None:
    a, b = runs(8, 3)
    assert paired_test(a, b, seed=0) == paired_test(a, b, seed=0)
    assert paired_test(a, b, seed=0)["p"] != paired_test(a, b, seed=1)["p"]


def test_more_resamples_than_one_slice_holds() -> None:
    a, b = runs(8, 3)
    assert paired_test(a, b, draws=700)["p"] == pytest.approx(binomtest(8, 11).pvalue, abs=0.08)


def make_labels(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = (rng.random((n, 3)) < 0.4).astype(int)
    a, b = (np.clip(true + rng.normal(0, spread, true.shape), 0, 1) for spread in (0.5, 0.9))
    true[rng.random(true.shape) < 0.1] = -1
    true[:3] = np.eye(3)
    return true, a, b


def naive_precision(true: np.ndarray, scores: np.ndarray) -> float:
    of_labels = [(t[t >= 0] == 1, s[t >= 0]) for t, s in zip(true.T, scores.T, strict=True)]
    return float(np.mean([average_precision_score(t, s) for t, s in of_labels if t.any()]))


def test_the_difference_in_precision_is_the_mean_over_seeds() -> None:
    parts = [make_labels(40, seed) for seed in range(3)]
    found = compare_precision(parts)
    each = [naive_precision(true, a) - naive_precision(true, b) for true, a, b in parts]
    assert found["difference"] == pytest.approx(np.mean(each))
    assert found["images"] == 120
    assert found["interval"][0] < found["difference"] < found["interval"][1]


def test_the_interval_of_a_difference_in_precision_equals_resampling_images_of_all_seeds_together() -> None:
    """Images 20 to 39 of the first seed are 0 to 19 of the second."""
    parts = [make_labels(40, seed) for seed in range(2)]
    images = [np.arange(40), np.arange(20, 60)]
    found = compare_precision(parts, images)
    rng, drawn = np.random.default_rng(5), []
    for _ in range(200):
        sample = rng.integers(0, 60, 60)
        differences = []
        for (true, a, b), named in zip(parts, images, strict=True):
            rows = np.concatenate([np.flatnonzero(named == image) for image in sample])
            differences.append(naive_precision(true[rows], a[rows]) - naive_precision(true[rows], b[rows]))
        drawn.append(np.mean(differences))
    assert found["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=0.03)
    assert found["images"] == 60
