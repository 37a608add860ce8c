"""The k-nearest-neighbour graph of features, symmetrically normalised (Zhou et al. 2004)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, diags_array
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

BLOCK_ROWS = 1024  # rows whose similarities to all others are in memory at once
COSINE_POWER = 3  # exponent of the cosines in edge weights (Iscen et al. 2019)


@dataclass(frozen=True)
class NearestNeighbours:
    """The nearest neighbours of each row, nearest first, and their cosines; both (N, k)."""

    rows: Tensor
    cosines: Tensor

    def build_graph(self, k: int) -> csr_array:
        """Return the graph of the `k` nearest of them: see :func:`build_neighbour_graph`."""
        near, cosines = self.rows[:, :k], self.cosines[:, :k]
        count, k = near.shape
        edges = cosines.double().clamp_min(0).pow(COSINE_POWER).numpy().ravel()
        one_way = coo_array((edges, (np.repeat(np.arange(count), k), near.numpy().ravel())), (count, count)).tocsr()
        graph = one_way.maximum(one_way.T)
        degree = np.asarray(graph.sum(1)).ravel()
        root = diags_array(np.divide(1.0, np.sqrt(degree), out=np.zeros(count), where=degree > 0))
        return csr_array(root @ graph @ root)


def find_neighbours(features: np.ndarray, k: int) -> NearestNeighbours:
    """Return the `k` nearest neighbours by cosine of each row of `features` (N, F), at most N - 1."""
    z = F.normalize(torch.from_numpy(np.asarray(features, np.float32)))
    count = len(z)
    k = min(k, count - 1)
    near, cosines = torch.empty((count, k), dtype=torch.int64), torch.empty((count, k))
    # topk is four times as fast as argpartition; in blocks, so that memory grows with N only
    for start in tqdm(range(0, count, BLOCK_ROWS), desc="neighbours", disable=None, delay=2):
        each = z[start : start + BLOCK_ROWS] @ z.T
        each.diagonal(start).fill_(-torch.inf)
        cosines[start : start + BLOCK_ROWS], near[start : start + BLOCK_ROWS] = each.topk(k, 1)
    return NearestNeighbours(near, cosines)


def build_neighbour_graph(features: np.ndarray, k: int = 5) -> csr_array:
    """Return D^-1/2 W D^-1/2 of the symmetric k-nearest-neighbour graph, shape (N, N), sparse.

    Rows i and j have an edge of weight max(cosine, 0)³ if either is among the other's `k` nearest neighbours; D holds
    the row sums of W. A row of `features` (N, F) without positive cosines has no edge.
    """
    return find_neighbours(features, k).build_graph(k)
