"""The device of a run, and the versions of the software that computed its result."""

import platform
from functools import cache
from importlib import metadata

import torch

from transfer.errors import TransferError
from transfer.runtime import distributed
from transfer.runtime.version import VERSION


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
    processes = distributed.get_local_world_size()
    if name != "cuda" or processes == 1:
        return torch.device(name)
    gpus = torch.cuda.device_count()
    if processes > gpus:
        raise TransferError(f"{processes} processes but {gpus} GPUs: one process per GPU, or --device cpu")
    return torch.device("cuda", distributed.get_local_rank())


def get_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that computed a result."""
    names = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow")
    own = {"python": platform.python_version(), "transfer": VERSION}
    return own | {name: _read_version(name) for name in names}


_read_version = cache(metadata.version)  # which reads a file of the package
