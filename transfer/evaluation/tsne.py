"""Features -> places in the plane that keep neighbours together."""

import numpy as np

COMPONENTS, PERPLEXITY = 50, 30


def embed_tsne(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a place in the plane, shape (N, 2), for each of `features` (N, F): t-SNE (van der Maaten and Hinton 2008).

    Of the leading 50 principal components, from which it also starts. Two rows or fewer have no neighbourhood to keep:
    they are placed side by side.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows, width = features.shape
    if rows < 3:
        return np.stack([np.arange(rows), np.zeros(rows)], 1)
    with np.errstate(invalid="ignore"):  # features that collapsed have no variance to explain
        space = PCA(min(COMPONENTS, width, rows), random_state=seed).fit_transform(features.astype(np.float64))
    start = np.zeros((rows, 2))
    start[:, : space.shape[1]] = space[:, :2]
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(PERPLEXITY, (rows - 1) / 3)
    return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(space)
