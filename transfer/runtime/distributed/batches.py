"""A batch shared out over processes: which rows are whose, and all of them again from everyone's own."""

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

from transfer.runtime.distributed.group import agreed, rank, world


def bounds(count: int, number: int, size: int) -> tuple[int, int]:
    """Return where process `number` of `size` begins and ends among `count` rows, shared out evenly to within one.

    Of more rows no process has fewer.

    Examples
    --------
    >>> [bounds(8, number, 3) for number in range(3)]
    [(0, 3), (3, 6), (6, 8)]
    """
    each, more = divmod(count, size)
    start = each * number + min(number, more)
    return start, start + each + (number < more)


def own(count: int) -> slice:
    """Return which of `count` rows are this process's."""
    return slice(*bounds(count, rank(), world()))


@dataclass(frozen=True)
class Piece:
    """Rows of a batch that are taken at a time.

    Parameters
    ----------
    own : slice
        Which of this process's own rows.
    sizes : tuple of int
        How many of each process's.
    index : ndarray of int64
        Which of the batch's, one process's after the other's.
    """

    own: slice
    sizes: tuple[int, ...]
    index: np.ndarray


def pieces(count: int, parts: int) -> list[Piece]:
    """Return a batch of `count` rows in so many parts, or fewer, in each of which every process has its share."""
    found = []
    for part in range(parts):
        ends = [bounds(count, number, world()) for number in range(world())]
        spans = [(start, *bounds(end - start, part, parts)) for start, end in ends]
        index = np.concatenate([np.arange(start + a, start + b) for start, a, b in spans])
        if len(index):
            sizes = tuple(b - a for _, a, b in spans)
            found.append(Piece(slice(*spans[rank()][1:]), sizes, index))
    return found


class _Gathered(torch.autograd.Function):
    """Everyone's rows, one process's after the other's.

    All processes go on with the same rows to the same loss, so each has the whole gradient and takes that of its own
    rows, times the number of processes: averaged over them, as DDP averages what parameters get, their parts make up
    the gradient of the whole batch.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        start = sum(sizes[: rank()])
        context.own = slice(start, start + sizes[rank()])
        size = rows[:1].nbytes or rows.new_empty(rows.shape[1:]).nbytes
        sent = torch.zeros(max(sizes) * size, dtype=torch.uint8, device=rows.device)  # as bytes: of any type
        content = rows.detach().contiguous().flatten().view(torch.uint8)
        sent[: len(content)] = content
        parts = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(parts, sent)
        whole = torch.cat([part[: count * size] for part, count in zip(parts, sizes, strict=True)])
        return whole.view(rows.dtype).view(sum(sizes), *rows.shape[1:])

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0][context.own] * world(), None


def gather(rows: Tensor, count: int, sizes: tuple[int, ...] | None = None) -> Tensor:
    """Return all `count` rows of which :func:`own` are `rows`, with gradient, on every process.

    Parameters
    ----------
    sizes : tuple of int, optional
        How many rows each process has, if not that.
    """
    if world() == 1:
        return rows
    ends = [bounds(count, number, world()) for number in range(world())]
    return _Gathered.apply(rows, sizes or tuple(end - start for start, end in ends))


def anywhere(mask: np.ndarray) -> np.ndarray:
    """Return where `mask`, bool (N,), is true in any process."""
    if world() == 1 or not agreed(bool(mask.any())):
        return mask
    found = torch.from_numpy(mask.astype(np.uint8))
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.numpy().astype(bool)


def averaged(module: nn.Module) -> nn.Module:
    """Return `module` with the gradients of what learns in it averaged over the processes (torch's DDP)."""
    if world() == 1:
        return module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the newer name of this option came long after torch 2.6
        return DistributedDataParallel(module, broadcast_buffers=False)


@contextmanager
def own_draws(device: torch.device, *key: int) -> Iterator[None]:
    """Let torch draw for this process's rows from a stream of their own, seeded by `key`; afterwards all draw alike."""
    if world() == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng([*key, rank()]).integers(2**63)))
        yield
