import numpy as np
import pytest

from transfer.evaluation.tsne import embed_tsne


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
