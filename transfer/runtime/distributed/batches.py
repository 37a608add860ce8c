"""A batch divided among processes: the rows of each, and gathering all rows again."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from transfer.runtime.distributed.group import any_rank, get_rank, get_world_size


def shard_bounds(count: int, number: int, size: int) -> tuple[int, int]:
    """Return the first row of process `number` of `size`, and its last plus one; shares differ by at most one row.

    No share shrinks when `count` grows.

    Examples
    --------
    >>> [shard_bounds(8, number, 3) for number in range(3)]
    [(0, 3), (3, 6), (6, 8)]
    """
    each, more = divmod(count, size)
    start = each * number + min(number, more)
    return start, start + each + (number < more)


def get_local_rows(count: int) -> slice:
    """Return this process's share of `count` rows."""
    return slice(*shard_bounds(count, get_rank(), get_world_size()))


@dataclass(frozen=True)
class BatchPart:
    """One part of a batch that is processed in several.

    Parameters
    ----------
    local_rows : slice
        The part's rows within this process's share.
    sizes : tuple of int
        Rows of each process in the part.
    index : ndarray of int64
        The part's rows within the batch, ordered by rank.
    """

    local_rows: slice
    sizes: tuple[int, ...]
    index: np.ndarray


def split_batch(count: int, parts: int) -> list[BatchPart]:
    """Divide a batch of `count` rows into at most `parts`; every process has its share of each."""
    found = []
    for part in range(parts):
        ends = [shard_bounds(count, number, get_world_size()) for number in range(get_world_size())]
        spans = [(start, *shard_bounds(end - start, part, parts)) for start, end in ends]
        index = np.concatenate([np.arange(start + a, start + b) for start, a, b in spans])
        if len(index):
            sizes = tuple(b - a for _, a, b in spans)
            found.append(BatchPart(slice(*spans[get_rank()][1:]), sizes, index))
    return found


class _GatherRows(torch.autograd.Function):
    """All processes' rows, ordered by rank, with gradient.

    Every process computes the same loss from the same rows, so each has the whole gradient. The backward pass returns
    the gradient of the local rows times the world size, so that DDP's average over processes equals that of the batch.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        start = sum(sizes[: get_rank()])
        context.local_rows = slice(start, start + sizes[get_rank()])
        size = rows[:1].nbytes or rows.new_empty(rows.shape[1:]).nbytes
        sent = torch.zeros(max(sizes) * size, dtype=torch.uint8, device=rows.device)  # as bytes, for any dtype
        content = rows.detach().contiguous().flatten().view(torch.uint8)
        sent[: len(content)] = content
        parts = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(parts, sent)
        whole = torch.cat([part[: count * size] for part, count in zip(parts, sizes, strict=True)])
        return whole.view(rows.dtype).view(sum(sizes), *rows.shape[1:])

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0][context.local_rows] * get_world_size(), None


def gather_rows(rows: Tensor, count: int, sizes: tuple[int, ...] | None = None) -> Tensor:
    """Return all `count` rows of a batch on every process, with gradient, from each one's local `rows`.

    Parameters
    ----------
    rows : Tensor
        This process's share, (n, ...).
    count : int
        Rows of all processes.
    sizes : tuple of int, optional
        Rows of each process (default: as :func:`shard_bounds` divides them).
    """
    if get_world_size() == 1:
        return rows
    ends = [shard_bounds(count, number, get_world_size()) for number in range(get_world_size())]
    return _GatherRows.apply(rows, sizes or tuple(end - start for start, end in ends))


def any_rank_mask(mask: np.ndarray) -> np.ndarray:
    """Return where `mask`, bool (N,), is true in at least one process."""
    if get_world_size() == 1 or not any_rank(bool(mask.any())):
        return mask
    found = torch.from_numpy(mask.astype(np.uint8))
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.numpy().astype(bool)


def wrap_ddp(module: nn.Module) -> nn.Module:
    """Return `module` wrapped so that its gradients are averaged over the processes (torch's DDP)."""
    if get_world_size() == 1:
        return module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the option was renamed after torch 2.6
        return DistributedDataParallel(module, broadcast_buffers=False)


@contextmanager
def fork_rng_by_rank(device: torch.device, *key: int) -> Iterator[None]:
    """Draw from a random stream of this rank, seeded by `key`; the common stream continues unchanged afterwards."""
    if get_world_size() == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng([*key, get_rank()]).integers(2**63)))
        yield
