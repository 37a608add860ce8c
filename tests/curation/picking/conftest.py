from collections.abc import Callable

import numpy as np
import pytest

from transfer.curation.picking.pool import Pool, scale_to_unit_length


@pytest.fixture
def make_pool() -> Callable[..., Pool]:
    """Make a pool of six clusters of features in 8 dimensions, of which the first `labelled` rows are labelled."""

    def make(n: int = 60, labelled: int = 0, seed: int = 0, spread: float = 0.3) -> Pool:
        rng = np.random.default_rng(seed)
        cluster = rng.integers(0, 6, n)
        features = 2 * np.eye(8)[cluster] + spread * rng.normal(size=(n, 8))
        covered = np.arange(n) < labelled
        logits = features[:, :3] + rng.normal(size=(n, 3))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        z = scale_to_unit_length(features)
        return Pool(z, ~covered, covered, p if labelled else None, ("a", "b", "c"), seed)

    return make
