"""The process group of a run: ranks, start and end, barriers and broadcasts.

Nothing here imports torch in a single process.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from transfer.errors import TransferError, get_first_line

TIMEOUT = timedelta(minutes=10)  # per collective: a process that hangs ends the run after this
GRACE_SECONDS = 1.0  # a failed process has this long to print its error before the others report it
MAX_POLL_SECONDS = 0.1  # between two checks of whether all processes have arrived

T = TypeVar("T")


class ProcessLost(TransferError):
    """Another process of this run ended before its work was done."""

    def __init__(self) -> None:
        super().__init__("another process of this run ended too early, so this one ends too")


@dataclass
class _ProcessGroup:
    """The rank of this process, the shared key-value store and how many barriers it has passed."""

    rank: int
    world_size: int
    store: Any
    barriers: int = 0


_group: _ProcessGroup | None = None


def get_rank() -> int:
    """Return this process's number, from 0."""
    return _group.rank if _group else 0


def get_world_size() -> int:
    """Return how many processes run together."""
    return _group.world_size if _group else 1


def is_rank_zero() -> bool:
    """Return whether this is the process that writes files and prints."""
    return get_rank() == 0


def get_local_rank() -> int:
    """Return this process's number among those on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _group else 0


def get_local_world_size() -> int:
    """Return how many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if _group else 1


def count_cores_per_process() -> int:
    """Return this process's share of the machine's cores, at least one."""
    return max(1, (os.cpu_count() or 1) // get_local_world_size())


def is_launched() -> bool:
    """Return whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def join_process_group() -> Iterator[None]:
    """Join the processes that torchrun started, if it did; leave the group when all are done.

    Collectives run over gloo on the CPU and over NCCL on CUDA devices, one device per process.

    Raises
    ------
    TransferError
        The processes cannot meet.
    ProcessLost
        Another process ended early.
    """
    global _group
    if _group or not is_launched():
        yield
        return
    import torch.distributed as dist

    try:
        _group = _rendezvous()
    except (RuntimeError, ValueError) as error:
        raise TransferError(f"the processes of this run cannot meet: {get_first_line(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # affects speed only
            yield
        wait_for_all()
        _leave()
    except BaseException as error:
        if not isinstance(error, ProcessLost):
            _raise_flag("failed")
        lost = isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error))
        if lost or isinstance(error, ProcessLost):
            time.sleep(GRACE_SECONDS)
        if lost:
            raise ProcessLost from error
        raise
    dist.destroy_process_group()
    _group = None


def _rendezvous() -> _ProcessGroup:
    """Meet the other processes and return this one's place in the group."""
    import torch
    import torch.distributed as dist

    store, number, size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    backend, prefix = "cpu:gloo,cuda:nccl" if cuda else "gloo", dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=prefix, rank=number, world_size=size, timeout=TIMEOUT)
    flags = dist.PrefixStore("transfer", store)
    flags.set(f"met {number}", "")
    if number == 0:  # rank 0 may host the store, and must not fail and end before the others have arrived
        flags.wait([f"met {other}" for other in range(size)])
    return _ProcessGroup(number, size, flags)


@contextmanager
def silence_other_ranks() -> Iterator[None]:
    """Discard what every process but rank 0 prints meanwhile."""
    with ExitStack() as stack:
        if is_launched() and int(os.environ["RANK"]):
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def print_once(line: str) -> bool:
    """Print why the run ends, unless another process already has; return whether this one may print."""
    may_print = not _raise_flag("said") if _group else not is_launched() or os.environ["RANK"] == "0"
    if may_print and line:
        print(line, file=sys.stderr, flush=True)
    return may_print


def _raise_flag(name: str) -> bool:
    """Raise a flag that all processes see; return whether it was up already."""
    try:
        return bool(_group and _group.store.add(name, 1) > 1)
    except RuntimeError:  # the store's host is gone: rank 0 or torchrun, which report for themselves
        return True


def _leave() -> None:
    """Leave the group; rank 0 hosts the key-value store, so it must exit last."""
    assert _group
    left = _group.store.add("left", 1)
    while is_rank_zero() and left < _group.world_size:
        time.sleep(0.001)
        left = _group.store.add("left", 0)


def wait_for_all() -> None:
    """Wait until every process has arrived here, however long that takes, unless one fails.

    Raises
    ------
    ProcessLost
        A process has failed.
    """
    if _group is None:
        return
    _group.barriers += 1
    key, nap = f"here {_group.barriers}", 0.001
    arrived = _group.store.add(key, 1)
    while arrived < _group.world_size:
        if _group.store.check(["failed"]):
            raise ProcessLost
        time.sleep(nap)
        nap = min(2 * nap, MAX_POLL_SECONDS)
        arrived = _group.store.add(key, 0)


@contextmanager
def local_rank_zero_first() -> Iterator[None]:
    """Run the block in the first process of each machine before the others there, which then find its files."""
    if get_local_rank():
        wait_for_all()
    yield
    if not get_local_rank():
        wait_for_all()


def any_rank(value: bool) -> bool:
    """Return whether `value` is true in any process."""
    if _group is None:
        return value
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(value))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def broadcast(value: T) -> T:
    """Return rank 0's `value`, plain JSON, in every process: timings, and decisions that all must share."""
    return json.loads(broadcast_bytes(json.dumps(value).encode())) if _group else value


def broadcast_bytes(content: bytes) -> bytes:
    """Return rank 0's `content` in every process."""
    if _group is None:
        return content
    import torch
    import torch.distributed as dist

    size = torch.tensor(len(content))
    dist.broadcast(size, 0)
    buffer = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8) if is_rank_zero() else torch.empty(int(size)).byte()
    )
    dist.broadcast(buffer, 0)
    return buffer.numpy().tobytes()
