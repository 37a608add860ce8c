"""t-SNE: features of many dimensions as points in the plane."""

import numpy as np

PCA_COMPONENTS = 50  # principal components that t-SNE reads, at most
PERPLEXITY = 30


def embed_tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return points in the plane, (N, 2), that keep neighbours of `features` (N, F) together.

    t-SNE (van der Maaten and Hinton 2008) of the leading principal components, initialised with the first two. Two
    rows or fewer are placed side by side.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows, width = features.shape
    if rows < 3:
        return np.stack([np.arange(rows), np.zeros(rows)], 1)
    with np.errstate(invalid="ignore"):  # collapsed features have no variance to explain
        space = PCA(min(PCA_COMPONENTS, width, rows), random_state=seed).fit_transform(features.astype(np.float64))
    start = np.zeros((rows, 2))
    start[:, : space.shape[1]] = space[:, :2]
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(PERPLEXITY, (rows - 1) / 3)
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(space)
