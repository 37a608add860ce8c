"""A batch that does not fit into memory is taken in parts, whose gradients add up to its own."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from transfer.errors import TransferError
from transfer.runtime.distributed.batches import BatchPart, split_batch

HeadOutputs = dict[str, Tensor]
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the memory of a device, or of the machine, is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in said or "DefaultCPUAllocator" in said)


def split_rows(rows: int, parts: int) -> list[slice]:
    """Return `rows` shared out over so many slices, or fewer.

    Examples
    --------
    >>> split_rows(5, 2)
    [slice(0, 3, None), slice(3, 5, None)]
    """
    size = -(-rows // parts)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def halve_until_fits(
    attempt: Callable[[int], Result], rows: int, parts: int, clear: Callable[[], None], how: str
) -> tuple[Result, int]:
    """Return what `attempt` does with a batch in `parts`, in twice as many each time that memory does not suffice.

    Parameters
    ----------
    attempt : callable
        Given in how many parts.
    rows : int
        Of the batch.
    clear : callable
        Removes what a failed attempt leaves behind.
    how : str
        What becomes of the parts, to be logged.

    Returns
    -------
    taken : object
        What `attempt` returned.
    parts : int
        In how many it was taken, which later ones had better be, too.

    Raises
    ------
    TransferError
        A single row does not fit.
    """
    while True:
        clear()
        try:
            return attempt(parts), parts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if parts >= rows:
                raise TransferError(
                    "out of memory on a single image: take a smaller --backbone, --image-size or --batch-size, or "
                    "train fewer stages"
                ) from None
        parts *= 2  # here, where nothing holds on to what the failed attempt had
        clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: batches of %d are taken in %d parts, %s", rows, parts, how)


def run_in_parts(
    take: Callable[[slice], tuple[Tensor, HeadOutputs]], rows: int, parts: int, clear: Callable[[], None]
) -> tuple[Tensor, HeadOutputs, int]:
    """Take a batch in `parts`, or in more: see :func:`halved`.

    Parameters
    ----------
    take : callable
        Given which rows, adds their share of the batch's gradient to what is there; returns their share of its loss,
        and what each head put out, (rows, ...).
    clear : callable
        Removes all gradients.

    Returns
    -------
    loss : Tensor
        Of the whole batch.
    out : dict of str to Tensor
        Of all its rows.
    parts : int
    """
    how = "their gradients added up"
    taken, parts = halve_until_fits(
        lambda parts: [take(part) for part in split_rows(rows, parts)], rows, parts, clear, how
    )
    if len(taken) == 1:
        return *taken[0], parts
    out = {name: torch.cat([some[name] for _, some in taken]) for name in taken[0][1]}
    return torch.stack([loss for loss, _ in taken]).sum(), out, parts


def run_in_parts_distributed(
    take: Callable[[BatchPart], tuple[Tensor, HeadOutputs]],
    rows: int,
    parts: int,
    clear: Callable[[], None],
    averaged: Any,
) -> tuple[Tensor, HeadOutputs]:
    """Take a batch that several processes share in `parts`; see :func:`in_parts`.

    Parameters
    ----------
    averaged : DistributedDataParallel
        Averages gradients over the processes, once for all parts.

    Raises
    ------
    TransferError
        Memory does not suffice: that is known to this process alone, and the others do not wait.
    """
    clear()
    every = split_batch(rows, parts)
    taken = []
    for piece in every:
        try:
            with nullcontext() if piece is every[-1] else averaged.no_sync():
                taken.append(take(piece))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise TransferError(f"out of memory: say --accumulate {2 * parts}, or more") from None
            raise
    order = torch.from_numpy(np.argsort(np.concatenate([piece.index for piece in every])))
    out = {name: torch.cat([some[name] for _, some in taken]) for name in taken[0][1]}
    return torch.stack([loss for loss, _ in taken]).sum(), {name: values[order] for name, values in out.items()}
