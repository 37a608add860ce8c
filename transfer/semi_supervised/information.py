"""Propagated labels refined by class prototypes of most mutual information (Boudiaf et al. 2020).

Propagation follows the graph wherever it leads, and a few labels make it lead too many images to one class. Prototypes
that decide every image, and give every class its share, move to where the images are.
"""

from functools import partial

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from transfer.probes.side_by_side import run_side_by_side
from transfer.runtime.compiler import defer_compiler

# Set on amazon, dslr and scanned digits with mobilenetv2_100, 1 to 3 labels of each class: 5 and 20, 32 and 128, and
# 0.3 are worse on at least two of them; 20 to 200 steps of the same total length differ by less than a point.
SHARPNESS = 10.0  # of the softmax over squared distances to prototypes
COMPONENTS = 64  # of the features; as many as classes, if these are more
STEPS, RATE = 100, 2e-3  # of Adam
MAX_OUTPUTS = 2_000_000  # rows x classes, beyond which nothing is refined: some 6 s on one core


def can_refine(rows: int, classes: int) -> bool:
    """Return whether refining takes seconds rather than minutes."""
    return rows * classes <= MAX_OUTPUTS


def project_features(x: Tensor, classes: int) -> Tensor:
    """Return the largest principal components of `x` (N, width), scaled to length 1, (N, components).

    There are `COMPONENTS` of them, or `classes` if these are more.
    """
    centred = x.float() - x.float().mean(0)
    wide = len(x) < x.shape[1]
    products = centred @ centred.T if wide else centred.T @ centred
    first = max(0, len(products) - max(COMPONENTS, classes))
    found = eigh(products.numpy(), subset_by_index=(first, len(products) - 1), check_finite=False)
    squares, vectors = map(torch.from_numpy, found)
    return F.normalize(vectors * squares.clamp_min(0).sqrt() if wide else centred @ vectors)


def refine_probabilities(z: Tensor, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the class probabilities (N, K) of prototypes that start at the means of `probabilities`.

    Gradient steps lower the cross-entropy of the labelled rows, plus the mean entropy of the other rows, plus the
    divergence of their class shares from the square roots of the shares in `probabilities`, normalised: between what
    propagation found and equal shares, as neither is right where classes differ in size.

    Parameters
    ----------
    z : Tensor, shape (N, components)
        See :func:`project_features`.
    probabilities : ndarray, shape (N, K)
        Propagated ones.
    labels : ndarray of int64, shape (N,)
        -1 where unknown.

    References
    ----------
    M. Boudiaf et al., "Information maximization for few-shot learning", 2020, eq. 3 (alpha = lambda = 1), with the
    entropy of class shares replaced by that divergence.
    """
    known = torch.from_numpy(labels >= 0)
    if bool(known.all()):
        return probabilities
    start = torch.from_numpy(probabilities).float()
    start[known] = F.one_hot(torch.from_numpy(labels)[known], start.shape[1]).float()
    shares = start[~known].mean(0).clamp_min(1e-9).sqrt()
    # On one core: steps are so small that several wait for each other longer than they compute.
    (refined,) = run_side_by_side([partial(_move, z, start, torch.from_numpy(labels), (shares / shares.sum()).log())])
    return refined


def _move(z: Tensor, start: Tensor, labels: Tensor, log_shares: Tensor) -> np.ndarray:
    """Return the class probabilities (N, K) of prototypes after `STEPS` steps from the means of `start`."""
    known = labels >= 0
    # A class that no row may belong to stays at the origin, at distance 1 from all.
    prototypes = (start.T @ z / start.sum(0).clamp_min(1e-9)[:, None]).requires_grad_()
    with torch.enable_grad(), defer_compiler():
        optimizer = torch.optim.Adam([prototypes], lr=RATE, foreach=False)
        for _ in tqdm(range(STEPS), desc="prototypes", disable=None, delay=2, leave=False):
            logits = _compute_logits(z, prototypes)
            log_p = logits[~known].log_softmax(1)
            p = log_p.exp()
            mean = p.mean(0)
            loss = F.cross_entropy(logits[known], labels[known])
            loss = loss - (p * log_p).sum(1).mean() + (mean * (mean.clamp_min(1e-12).log() - log_shares)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _compute_logits(z, prototypes.detach()).double().softmax(1).numpy()


def _compute_logits(z: Tensor, prototypes: Tensor) -> Tensor:
    """Return half the negative squared distances times `SHARPNESS`, without the part that all classes share."""
    return SHARPNESS * (z @ prototypes.T - prototypes.square().sum(1) / 2)
