"""Run independent solves at the same time, each on one core: faster than one after the other, each on all cores.

On one core a solve gives the same bits whatever runs beside it; on several they depend on how many there are.
"""

from collections.abc import Callable, Sequence
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
