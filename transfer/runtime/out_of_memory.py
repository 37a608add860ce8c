"""If a batch does not fit into memory, process it in parts whose gradients add up to the batch's."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
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
    """Return whether `error` reports that the memory of a device or of the machine is exhausted."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and ("not enough memory" in message or "DefaultCPUAllocator" in message)


def split_rows(rows: int, parts: int, least: int = 1) -> list[slice]:
    """Divide `rows` into at most `parts` slices of about one size, of `least` rows or more if there are as many.

    Examples
    --------
    >>> split_rows(5, 2), split_rows(3, 2, least=2)
    ([slice(0, 3, None), slice(3, 5, None)], [slice(0, 3, None)])
    """
    parts = max(min(parts, rows // least), 1)
    ends = [-(-rows * part // parts) for part in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def halve_until_fits(
    attempt: Callable[[int], Result], rows: int, parts: int, clear: Callable[[], None], how: str
) -> tuple[Result, int]:
    """Process a batch in `parts`; double their number each time that memory does not suffice.

    Parameters
    ----------
    attempt : callable
        Called with the number of parts.
    rows : int
        Rows of the batch.
    clear : callable
        Removes what a failed attempt leaves behind.
    how : str
        What becomes of the parts, for the log.

    Returns
    -------
    result : object
        What `attempt` returned.
    parts : int
        The number of parts that fitted; later batches should start with it.

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
        parts *= 2  # outside the except block, so that nothing references the failed attempt's tensors
        clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: batches of %d are processed in %d parts, %s", rows, parts, how)


def run_in_parts(
    take: Callable[[slice], tuple[Tensor, HeadOutputs]],
    rows: int,
    parts: int,
    clear: Callable[[], None],
    least: int = 1,
) -> tuple[Tensor, HeadOutputs, int]:
    """Process a batch in `parts` or more; see :func:`halve_until_fits`.

    Parameters
    ----------
    take : callable
        Called with a part's rows; adds their share of the batch's gradient and returns their share of its loss and
        each head's output, (rows, ...).
    clear : callable
        Removes all gradients.
    least : int
        Rows of a part, of a batch that has as many.

    Returns
    -------
    loss : Tensor
        Of the whole batch.
    out : dict of str to Tensor
        Of all its rows.
    parts : int
    """

    def attempt(parts: int) -> list[tuple[Tensor, HeadOutputs]]:
        return [take(part) for part in split_rows(rows, parts, least)]

    taken, parts = halve_until_fits(attempt, rows, parts, clear, "their gradients added up")
    if len(taken) == 1:
        return *taken[0], parts
    out = {name: torch.cat([outputs[name] for _, outputs in taken]) for name in taken[0][1]}
    return torch.stack([loss for loss, _ in taken]).sum(), out, parts


def run_in_parts_distributed(
    take: Callable[[BatchPart], tuple[Tensor, HeadOutputs]],
    rows: int,
    parts: int,
    clear: Callable[[], None],
    averaged: Any,
) -> tuple[Tensor, HeadOutputs]:
    """Process in `parts` a batch that several processes share; see :func:`run_in_parts`.

    Parameters
    ----------
    averaged : DistributedDataParallel
        Averages gradients over the processes, once for all parts.

    Raises
    ------
    TransferError
        Memory does not suffice. Only this process knows, so it cannot change the number of parts by itself.
    """
    clear()
    every = split_batch(rows, parts)
    taken = []
    for part in every:
        try:
            with nullcontext() if part is every[-1] else averaged.no_sync():
                taken.append(take(part))
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise TransferError(f"out of memory: use --accumulate {2 * parts}, or more") from None
            raise
    order = torch.from_numpy(np.argsort(np.concatenate([part.index for part in every])))
    out = {name: torch.cat([outputs[name] for _, outputs in taken]) for name in taken[0][1]}
    return torch.stack([loss for loss, _ in taken]).sum(), {name: values[order] for name, values in out.items()}
