"""Importance weights of source rows: the density ratio of target to source, from a domain discriminator."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

DISCRIMINATOR_COMPONENTS = 64  # principal components: with more, a domain of a few hundred rows is memorised
MAX_RATIO = 20.0  # so that no row outweighs all others


def reduce_dimensions(*parts: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Return each of `parts` (N, F) in the leading whitened principal components of the first two, concatenated."""
    pooled = np.concatenate(parts[:2])
    components = min(DISCRIMINATOR_COMPONENTS, pooled.shape[1], len(pooled) - 1)
    with np.errstate(invalid="ignore"):  # collapsed features have no variance
        space = PCA(components, whiten=True, random_state=seed).fit(pooled)
    return [space.transform(part) if len(part) else np.empty((0, components)) for part in parts]


def density_ratio(source: np.ndarray, target: np.ndarray, rows: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Return p_target(x) / p_source(x) at each of `rows`, shape (N,), in [0, ``MAX_RATIO``].

    A logistic discriminator d(x) = P(target | x) is fitted on `source` (Ns, F) and `target` (Nt, F); by Bayes' rule its
    odds give the ratio Ns / Nt * d / (1 - d) (Bickel et al. 2007; You et al. 2019, eq. 4). It is overconfident on its
    training rows, so `rows` (N, F) are source rows that are not among `source`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> source, target = rng.normal(0, 1, (4000, 1)), rng.normal(1, 1, (4000, 1))
    >>> ratio = density_ratio(source, target, np.array([[0.0], [0.5], [1.0]]))  # of the two Gaussians: exp(x - 1/2)
    >>> bool(np.allclose(ratio, np.exp([-0.5, 0.0, 0.5]), atol=0.1))
    True
    """
    if not len(rows):
        return np.empty(0)
    source, target, rows = reduce_dimensions(source, target, rows, seed=seed)
    domain = np.repeat([0, 1], [len(source), len(target)])
    discriminator = LogisticRegression(max_iter=500).fit(np.concatenate([source, target]), domain)
    log_odds = discriminator.decision_function(rows) + np.log(len(source) / len(target))
    return np.exp(np.minimum(log_odds, np.log(MAX_RATIO)))
