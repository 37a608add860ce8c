"""The device of a run, and the versions of the software that computed its result."""

import platform
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from typing import TypeVar

import torch
from torch import Tensor

from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.version import VERSION

K = TypeVar("K")


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    TransferError
        The device is not available, or there are fewer GPUs than processes.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available["mps"] = available["mps"] and distributed.get_world_size() == 1  # MPS has no collectives
    if name == "auto":
        name = next(kind for kind, present in available.items() if present)
    if not available[name]:
        raise TransferError(f"--device {name}: not available here; use --device auto")
    if name == "cuda":  # convolutions add in a fixed order, so that a seed gives the same bits
        torch.backends.cudnn.deterministic = True
    processes = distributed.get_local_world_size()
    if name != "cuda" or processes == 1:
        return torch.device(name)
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise TransferError(f"{processes} processes but {gpus} GPUs: one process per GPU, or --device cpu")
    torch.cuda.set_device(distributed.get_local_rank())  # also that of pinned memory and of barriers
    return torch.device("cuda", distributed.get_local_rank())


def move_to(tensor: Tensor, device: torch.device) -> Tensor:
    """Return `tensor` on `device`; only a GPU copies it in the background, from pinned memory.

    MPS would read memory that may be freed by then: https://github.com/pytorch/pytorch/issues/189690.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


class CpuCopy:
    """A copy of `tensor` on the CPU; from a GPU it is made in the background, into pinned memory of its own."""

    def __init__(self, tensor: Tensor) -> None:
        self._copied: torch.cuda.Event | None = None
        if not tensor.is_cuda:
            self._copy = tensor.cpu()
            return
        self._copy = torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """Return the copy once it is made."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copy


def copy_to_cpu(batches: Iterable[tuple[K, Tensor]]) -> Iterator[tuple[K, Tensor]]:
    """Yield `batches` with their tensors on the CPU; those of a GPU one batch late, while it computes the next."""
    waiting: deque[tuple[K, CpuCopy]] = deque()
    for key, tensor in batches:
        waiting.append((key, CpuCopy(tensor)))
        while len(waiting) > (1 if tensor.is_cuda else 0):
            key, copy = waiting.popleft()
            yield key, copy.wait()
    for key, copy in waiting:
        yield key, copy.wait()


def get_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that computed a result."""
    names = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow")
    own = {"python": platform.python_version(), "transfer": VERSION}
    return own | {name: _read_version(name) for name in names}


_read_version = cache(metadata.version)  # which reads a file of the package
