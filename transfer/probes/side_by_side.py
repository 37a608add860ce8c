"""Run independent solves at the same time, each on one core: faster than one after the other, each on all cores.

On one core a solve gives the same bits whatever runs beside it; on several they depend on how many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from transfer.data.images.batches import open_single_threads
from transfer.probes.lbfgs import limit_blas

T = TypeVar("T")


def run_side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `jobs` returns, in their order; as many run at once as this thread may use cores."""
    cores = torch.get_num_threads()
    if cores == 1 or not jobs:
        return [job() for job in jobs]
    with limit_blas(), open_single_threads(min(cores, len(jobs))) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


@contextmanager
def run_beside(job: Callable[[], T], *, beside: bool = True) -> Iterator[Callable[[], T]]:
    """Run `job` in a thread while the block runs; yield what waits for its end and returns its result.

    If this thread may use one core only, or without `beside`, `job` runs before the block. Random numbers that both
    draw from torch's generator leave it as it was: their order is not defined.

    Examples
    --------
    >>> with run_beside(lambda: 2) as get_result:
    ...     other = 3
    >>> get_result() + other
    5
    """
    with torch.random.fork_rng(devices=[]):
        if not beside or torch.get_num_threads() == 1:
            result = job()
            yield lambda: result
            return
        # BLAS is limited until both have ended: the number of its threads is that of the process.
        with limit_blas(), ThreadPoolExecutor(1, initializer=torch.get_num_threads) as pool:
            pool.submit(int).result()  # the thread has its number of cores before another pool changes the default
            future = pool.submit(job)
            yield future.result
