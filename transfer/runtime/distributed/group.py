"""The processes of a run: which one this is, how they start and end, and what they wait for or agree on.

Nothing here imports torch before there are several.
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

from transfer.errors import TransferError

TIMEOUT = timedelta(minutes=10)  # of a step that all take together: a process that hangs ends the run after this
GRACE = 1.0  # seconds in which a process that failed may say why, before others say that it did
LONGEST_NAP = 0.1  # seconds between looks at whether the others are here

T = TypeVar("T")


class Lost(TransferError):
    """Another process of this run has ended before its work was done."""

    def __init__(self) -> None:
        super().__init__("another process of this run ended too early, and all end with it")


@dataclass
class _Group:
    """One process among others; `store` is where they leave each other word, `waits` how often all have met."""

    rank: int
    world: int
    store: Any
    waits: int = 0


_group: _Group | None = None


def rank() -> int:
    """Return this process's number, from 0."""
    return _group.rank if _group else 0


def world() -> int:
    """Return how many processes run together."""
    return _group.world if _group else 1


def first() -> bool:
    """Return whether this is the process that writes and speaks."""
    return rank() == 0


def local() -> tuple[int, int]:
    """Return this process's number among those on its machine, and how many they are."""
    if not _group:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def cores() -> int:
    """Return how many cores of this machine are this process's share, at least one."""
    return max(1, (os.cpu_count() or 1) // local()[1])


def launched() -> bool:
    """Return whether torchrun has started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def together() -> Iterator[None]:
    """Join the processes that torchrun has started, if it has, and leave them at the end, when all are done.

    Collectives on the CPU go through gloo, on CUDA devices, one a process, through NCCL.

    Raises
    ------
    TransferError
        They cannot meet.
    Lost
        Another process ended before.
    """
    global _group
    if _group or not launched():
        yield
        return
    import torch.distributed as dist

    try:
        _group = _met()
    except (RuntimeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise TransferError(f"the processes of this run cannot meet: {why}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # a matter of speed
            yield
        wait()
        _leave()
    except BaseException as error:
        if not isinstance(error, Lost):
            _tell("failed")
        lost = isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error))
        if lost or isinstance(error, Lost):
            time.sleep(GRACE)
        if lost:
            raise Lost from error
        raise
    dist.destroy_process_group()
    _group = None


def _met() -> _Group:
    """Return this process's place, once it has met the others."""
    import torch
    import torch.distributed as dist

    store, number, size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    backend, prefix = "cpu:gloo,cuda:nccl" if cuda else "gloo", dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=prefix, rank=number, world_size=size, timeout=TIMEOUT)
    words = dist.PrefixStore("transfer", store)
    words.set(f"met {number}", "")
    if number == 0:  # which may keep the words, and could fail and end before the others are this far
        words.wait([f"met {other}" for other in range(size)])
    return _Group(number, size, words)


@contextmanager
def quiet() -> Iterator[None]:
    """Let only the first of the processes print anything meanwhile."""
    with ExitStack() as stack:
        if launched() and int(os.environ["RANK"]):
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def say(line: str) -> bool:
    """Print why the run ends, unless another process has said so already; return whether it was printed."""
    speaks = not _tell("said") if _group else not launched() or os.environ["RANK"] == "0"
    if speaks and line:
        print(line, file=sys.stderr, flush=True)
    return speaks


def _tell(word: str) -> bool:
    """Leave a word for the others; return whether it was there already."""
    try:
        return bool(_group and _group.store.add(word, 1) > 1)
    except RuntimeError:  # whoever kept the words is gone: the first process, which speaks for itself, or torchrun
        return True


def _leave() -> None:
    """Let the first process, which may keep the words, end last."""
    assert _group
    left = _group.store.add("left", 1)
    while first() and left < _group.world:
        time.sleep(0.001)
        left = _group.store.add("left", 0)


def wait() -> None:
    """Wait until all processes are here, however long that takes, unless one has failed.

    Raises
    ------
    Lost
        One has.
    """
    if _group is None:
        return
    _group.waits += 1
    key, nap = f"here {_group.waits}", 0.001
    here = _group.store.add(key, 1)
    while here < _group.world:
        if _group.store.check(["failed"]):
            raise Lost
        time.sleep(nap)
        nap = min(2 * nap, LONGEST_NAP)
        here = _group.store.add(key, 0)


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the first process of each machine do this before the others there, which find what it left on the disk."""
    if local()[0]:
        wait()
    yield
    if not local()[0]:
        wait()


def agreed(value: bool) -> bool:
    """Return whether `value` is true in any process."""
    if _group is None:
        return value
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(value))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def same(value: T) -> T:
    """Return the first process's `value`, which is plain JSON, in all: of what is timed, or decides how to go on."""
    return json.loads(same_bytes(json.dumps(value).encode())) if _group else value


def same_bytes(content: bytes) -> bytes:
    """Return the first process's `content` in all."""
    if _group is None:
        return content
    import torch
    import torch.distributed as dist

    size = torch.tensor(len(content))
    dist.broadcast(size, 0)
    told = torch.frombuffer(bytearray(content), dtype=torch.uint8) if first() else torch.empty(int(size)).byte()
    dist.broadcast(told, 0)
    return told.numpy().tobytes()
