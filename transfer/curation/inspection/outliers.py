"""Outliers: images far from all others in feature space, often of another subject."""

from collections.abc import Iterator

import numpy as np
import torch

from transfer.curation.inspection.finding import Finding, FoundItem

NEIGHBOURS = 5
FAR_OUT = 3.0  # interquartile ranges above the upper quartile (Tukey 1977)
MOST_REFERENCES = 20_000  # images among which neighbours are sought, so that time grows with N beyond
_MOST_COSINES = 1 << 25  # in memory at once: 128 MiB
MIN_ROWS = 10  # of fewer, quartiles say nothing


def measure_neighbour_distance(features: np.ndarray, groups: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the mean cosine distance of each row of `features` (N, F) to its `k` nearest neighbours, float64 (N,).

    Features are centred. Rows of the same group (N,), such as duplicates, are not neighbours. The k-NN distance is
    Ramaswamy et al. 2000's, averaged over the neighbours (Angiulli and Pizzuti 2002). Of more than `MOST_REFERENCES`
    rows a fixed random sample are the possible neighbours of all.
    """
    x = torch.from_numpy(np.asarray(features, np.float32))
    x = torch.nn.functional.normalize(x - x.mean(0))
    groups_at = torch.from_numpy(groups)
    references = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(x))[:MOST_REFERENCES]))
    others, groups_of = x[references], groups_at[references]
    k = min(k, len(others) - 1)
    found = np.zeros(len(x))
    block = max(1, min(1024, _MOST_COSINES // max(len(others), 1)))
    for start in range(0, len(x) if k > 0 else 0, block):
        rows = slice(start, start + block)
        near = (x[rows] @ others.T).masked_fill_(groups_at[rows, None] == groups_of, -1.0)
        found[rows] = 1 - near.topk(k, 1).values.double().mean(1).numpy()
    return found


def find_outliers(features: np.ndarray, groups: np.ndarray) -> Iterator[Finding]:
    """Yield a finding with the images whose neighbour distance is far out (Tukey's outer fence), if there are any."""
    if len(features) < MIN_ROWS:
        return
    distance = measure_neighbour_distance(features, groups)
    low, high = np.quantile(distance, (0.25, 0.75))
    rows = np.flatnonzero(distance > high + FAR_OUT * max(high - low, 1e-6))
    if len(rows):
        rows = rows[np.argsort(-distance[rows], kind="stable")]
        yield Finding(
            "outliers",
            "Outliers and off-topic images",
            "Their features are far from those of all other images: another subject, a drawing, a screenshot, a fault.",
            "Remove what does not belong into the set. Keep rare but real cases, and collect more of them.",
            [
                FoundItem((row,), f"distance {distance[row]:.2f}, median {np.median(distance):.2f}")
                for row in rows.tolist()
            ],
        )
