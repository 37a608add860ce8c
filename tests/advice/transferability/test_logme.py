import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from transfer.advice.transferability.logme import logme


def dense(x: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """The log evidence as it is written: a density in N dimensions."""
    covariance = np.eye(len(x)) / beta + x @ x.T / alpha
    sign, volume = np.linalg.slogdet(covariance)
    assert sign > 0
    return -0.5 * (len(x) * np.log(2 * np.pi) + volume + y @ np.linalg.solve(covariance, y))


def by_search(x: np.ndarray, labels: np.ndarray) -> float:
    """LogME by searching alpha and beta, from many starts, on dense matrices."""
    total, classes = 0.0, np.unique(labels)
    for c in classes:
        y = (labels == c).astype(float)
        scale = np.square(x).sum() / len(x) or 1.0
        grid = [
            (dense(x, y, scale * np.exp(a), np.exp(b)), a, b) for a in np.arange(-12, 13, 2) for b in range(-3, 13, 2)
        ]
        best = max(grid)
        for _, a, b in sorted(grid)[-3:]:
            found = minimize(
                lambda p, y=y, scale=scale: -dense(x, y, scale * np.exp(p[0]), np.exp(p[1])),
                (a, b),
                method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 2000},
                bounds=[(-18, 18), (-6, 20)],
            )
            best = max(best, (-found.fun, *found.x))
        total += best[0]
    return total / len(classes) / len(x)


def test_the_reference_is_a_density() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=5)
    assert dense(x, y, 2.0, 3.0) == pytest.approx(multivariate_normal(cov=np.eye(5) / 3 + x @ x.T / 2).logpdf(y))


@pytest.mark.parametrize(
    ("n", "width", "signal"), [(12, 30, 1.0), (16, 16, 1.0), (24, 5, 2.0), (24, 5, 0.0), (40, 8, 0.5)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_maximum_evidence_of_dense_matrices(n: int, width: int, signal: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    x = rng.normal(size=(n, width)) * np.logspace(0, -2, width)
    x[:, :3] += signal * np.eye(3)[labels][:, : min(3, width)]
    assert logme(x, labels) == pytest.approx(by_search(x, labels), abs=2e-5)


@pytest.mark.parametrize("width", [4, 40])
def test_rank_deficient_features(width: int) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 20)
    x = rng.normal(size=(20, 2)) @ rng.normal(size=(2, width))
    assert logme(x, labels) == pytest.approx(by_search(x, labels), abs=2e-5)
    assert logme(x, labels) == pytest.approx(logme(np.linalg.qr(x.T)[1].T[:, :2], labels), abs=1e-8)


def test_constant_features_explain_the_mean_alone() -> None:
    labels = np.array([0] * 12 + [1] * 8)
    x = np.full((20, 6), 3.0)
    assert logme(x, labels) == pytest.approx(by_search(x, labels), abs=2e-5)
    assert logme(x, labels) == pytest.approx(logme(np.ones((20, 1)), labels), abs=1e-8)


def test_zero_features_explain_nothing() -> None:
    """The best beta is then N over the images of a class."""
    labels = np.array([0] * 5 + [1] * 15)
    expected = np.mean([-0.5 * (np.log(2 * np.pi * share) + 1) for share in (0.25, 0.75)])
    assert logme(np.zeros((20, 4)), labels) == pytest.approx(expected)


def test_where_the_published_iteration_is_wrong() -> None:
    """N = 498, D = 2048 random features, whose evidence on random labels is that of knowing nothing, or little more."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(498, 2048)).astype(np.float32), rng.integers(0, 31, 498)
    nothing = logme(np.zeros((498, 1)), labels)
    assert nothing <= logme(x, labels) + 1e-9
    assert logme(x, labels) == pytest.approx(nothing, abs=0.01)


def test_a_few_duplicates_do_not_make_a_noiseless_fit() -> None:
    """With N <= D an image twice makes each class exactly linear: unbounded, were its peak with noise not taken."""
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 2
    x = rng.normal(size=(200, 250))
    x[:, 0] += 4 * labels
    twice, both = np.concatenate([x, x[:4]]), np.concatenate([labels, labels[:4]])
    assert logme(twice, both) == pytest.approx(logme(x, labels), abs=0.05)
    y = both.astype(float)
    rising = [dense(twice, y, 1.0, beta) for beta in (1e4, 1e6, 1e8, 1e10)]
    assert np.diff(rising).min() > np.log(1e4) - 0.01  # without end


@given(st.integers(0, 10_000), st.integers(4, 25), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_invariances(seed: int, n: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(n, width)), rng.integers(0, 2, n)
    turned = np.linalg.qr(rng.normal(size=(width, width)))[0]
    order = rng.permutation(n)
    value = logme(x, labels)
    assert logme(x @ turned, labels) == pytest.approx(value, abs=1e-6)
    assert logme(x[order], labels[order]) == pytest.approx(value, abs=1e-6)
    assert logme(x * 1000, labels) == pytest.approx(value, abs=1e-6)
    assert logme(np.concatenate([x, np.zeros((n, 2))], axis=1), labels) == pytest.approx(value, abs=1e-6)
    assert logme(x, labels * 7 + 3) == pytest.approx(value, abs=1e-12)
    assert value >= logme(np.zeros((n, 1)), labels) - 1e-6


def test_unlabelled_rows_are_ignored() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(30, 4)), rng.integers(-1, 3, 30)
    assert logme(x, labels) == logme(x[labels >= 0], labels[labels >= 0])
    assert np.isnan(logme(x, np.full(30, -1)))


def test_better_features_have_more_evidence() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = rng.normal(size=(90, 20))
    values = [logme(noise + apart * np.eye(20)[labels], labels) for apart in (0.0, 1.0, 2.0, 4.0)]
    assert values == sorted(values)
