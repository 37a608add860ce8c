"""Prototypes of most mutual information by loops over rows, with gradients written out: a reference for tests."""

import numpy as np


def project_by_svd(x: np.ndarray, components: int) -> np.ndarray:
    """Return the principal components of `x`, scaled to length 1."""
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    z = (u * s)[:, :components]
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def refine_by_loops(
    z: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, steps: int, rate: float, sharpness: float
) -> np.ndarray:
    """Return class probabilities after `steps` of Adam."""
    n, k = probabilities.shape
    start = np.array([np.eye(k)[labels[i]] if labels[i] >= 0 else probabilities[i] for i in range(n)])
    known, unknown = np.flatnonzero(labels >= 0), np.flatnonzero(labels < 0)
    target = np.sqrt(start[unknown].mean(0))
    target /= target.sum()
    w = np.array([sum(start[i, c] * z[i] for i in range(n)) / start[:, c].sum() for c in range(k)])
    first, second = np.zeros_like(w), np.zeros_like(w)
    for step in range(1, steps + 1):
        p = _softmax(z, w, sharpness)
        by_logit = np.zeros((n, k))
        for i in known:
            by_logit[i] = (p[i] - np.eye(k)[labels[i]]) / len(known)
        mean = p[unknown].mean(0)
        for i in unknown:
            entropy = -(p[i] * np.log(p[i])).sum()
            of_entropy = -p[i] * (np.log(p[i]) + entropy)
            slope = np.log(mean / target) + 1
            of_shares = p[i] * (slope - (p[i] * slope).sum())
            by_logit[i] = (of_entropy + of_shares) / len(unknown)
        gradient = np.array([sharpness * sum(by_logit[i, c] * (z[i] - w[c]) for i in range(n)) for c in range(k)])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        w = w - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return _softmax(z, w, sharpness)


def _softmax(z: np.ndarray, w: np.ndarray, sharpness: float) -> np.ndarray:
    logits = np.array([[-sharpness / 2 * ((row - prototype) ** 2).sum() for prototype in w] for row in z])
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)
