import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import entropy

from transfer.evaluation.tsne import _affinities, _principal_components, embed_tsne


def grouped(rows: int, groups: int = 6, width: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    group = rng.integers(0, groups, rows)
    return (4 * rng.normal(size=(groups, width))[group] + rng.normal(size=(rows, width))).astype(np.float32)


def divergence(affinity: np.ndarray, points: np.ndarray) -> float:
    """The loss of t-SNE, written out."""
    near = 1 / (1 + ((points[:, None] - points[None]) ** 2).sum(2))
    np.fill_diagonal(near, 0)
    likely = affinity > 0
    return float((affinity[likely] * np.log(affinity[likely] / (near / near.sum())[likely])).sum())


@pytest.mark.parametrize("rows", [40, 100])
def test_the_loss_is_as_low_as_that_of_scikit_learn(rows: int) -> None:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = grouped(rows)
    space = PCA(min(50, rows)).fit_transform(features.astype(np.float64))
    perplexity = min(30, (rows - 1) / 3)
    start = space[:, :2] * (1e-4 / space[:, 0].std())
    reference = TSNE(perplexity=perplexity, init=start, method="exact").fit_transform(space)
    affinity = _affinities(space, perplexity)
    assert divergence(affinity, embed_tsne(features)) < 1.03 * divergence(affinity, reference) + 0.01


def test_each_row_has_the_perplexity_that_was_asked_for() -> None:
    space, perplexity = _principal_components(grouped(60).astype(np.float64)), 15
    rows = []
    for i, row in enumerate(space):
        distances = ((space - row) ** 2).sum(1)

        def weights(precision: float, distances: np.ndarray = distances, i: int = i) -> np.ndarray:
            w = np.exp(-precision * (distances - distances[np.arange(60) != i].min())) * (np.arange(60) != i)
            return w / w.sum()

        root = brentq(lambda p, w=weights: entropy(w(p)) - np.log(perplexity), 1e-7, 0.5)
        rows.append(weights(root))
    reference = np.array(rows)
    np.testing.assert_allclose(_affinities(space, perplexity), (reference + reference.T) / 120, rtol=1e-4, atol=1e-9)


def test_principal_components_are_those_of_the_covariance() -> None:
    features = grouped(60).astype(np.float64)
    found = _principal_components(features)
    assert found.shape == (60, 50)
    variance = np.sort(np.linalg.eigvalsh(np.cov(features.T, bias=True)))[::-1]
    np.testing.assert_allclose(found.var(0), variance[:50], rtol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.diag((found**2).sum(0)), atol=1e-6 * variance[0] * 60)


def test_neighbours_remain_neighbours() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 30)
    features = 20 * rng.normal(size=(3, 80))[group] + rng.normal(size=(90, 80))
    place = embed_tsne(features.astype(np.float32))
    assert place.shape == (90, 2)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(1)] == group).all()


@pytest.mark.parametrize("features", [np.zeros((30, 4)), np.ones((3, 1)), np.zeros((1, 4)), np.zeros((2, 4))])
def test_collapsed_or_few_features_are_embedded(features: np.ndarray) -> None:
    place = embed_tsne(features.astype(np.float32))
    assert place.shape == (len(features), 2)
    assert np.isfinite(place).all()
