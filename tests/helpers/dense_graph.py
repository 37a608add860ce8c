"""The graph of nearest neighbours as a dense matrix, made by loops."""

import numpy as np


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def build_dense_graph(x: np.ndarray, k: int) -> np.ndarray:
    """Return D^-1/2 W D^-1/2 (N, N): an edge of max(cosine, 0)³ where either row is among the other's `k` nearest."""
    n = len(x)
    weights = np.zeros((n, n))
    for i in range(n):
        near = sorted((j for j in range(n) if j != i), key=lambda j: -cosine(x[i], x[j]))[:k]
        for j in near:
            weights[i, j] = weights[j, i] = max(cosine(x[i], x[j]), 0) ** 3
    degree = weights.sum(1)
    result = np.zeros((n, n))
    for i, j in zip(*weights.nonzero(), strict=True):
        result[i, j] = weights[i, j] / np.sqrt(degree[i] * degree[j])
    return result
