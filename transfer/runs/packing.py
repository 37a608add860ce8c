"""Whatever a run carries from step to step, as tensors by name and a plain JSON record, and back to the bit."""

import random
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

Tensors = dict[str, Tensor]


def pack(value: Any) -> tuple[Tensors, Any]:
    """Return the tensors in `value`, by name, and its record, from which :func:`unpack` makes it again.

    Parameters
    ----------
    value : object
        Tensors and numeric arrays of any dtype, numbers, strings, None, torch's dtypes; dicts, lists and tuples of
        these. Integers may be of any size.

    Raises
    ------
    TypeError
        There is anything else in it.

    Examples
    --------
    >>> tensors, record = pack({"step": 3, 1: (torch.ones(2), None)})
    >>> record
    {'dict': [['step', 3], [1, {'tuple': [{'tensor': '0'}, None]}]]}
    >>> unpack(tensors, record)
    {'step': 3, 1: (tensor([1., 1.]), None)}
    """
    tensors: Tensors = {}
    names: dict[int, tuple[str, Tensor]] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return _named(value, tensors, names)
        if isinstance(value, np.ndarray):
            return {"array": plain(torch.from_numpy(np.ascontiguousarray(value))), "shape": list(value.shape)}
        if isinstance(value, np.generic):
            return plain(value.item())
        if isinstance(value, dict):
            return {"dict": [[plain(key), plain(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [plain(item) for item in value]}
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if value is None or isinstance(value, str | int | float):
            return value
        raise TypeError(f"cannot keep a {type(value).__name__}")

    return tensors, plain(value)


def unpack(tensors: Tensors, record: Any) -> Any:
    """Return what :func:`pack` was given; tensors are on the CPU, as they lay in memory."""
    if isinstance(record, list):
        return [unpack(tensors, item) for item in record]
    if not isinstance(record, dict):
        return record
    if "tensor" in record:
        tensor = tensors[record["tensor"]]
        stride = record.get("stride", tensor.stride())
        # Memory of torch's own: how sums are rounded depends on where a tensor begins, too.
        return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
    if "dtype" in record:
        return getattr(torch, record["dtype"])
    if "array" in record:
        return unpack(tensors, record["array"]).numpy().reshape(record["shape"])
    if "tuple" in record:
        return tuple(unpack(tensors, item) for item in record["tuple"])
    return {unpack(tensors, key): unpack(tensors, item) for key, item in record["dict"]}


def _named(tensor: Tensor, tensors: Tensors, names: dict[int, tuple[str, Tensor]]) -> dict[str, Any]:
    """Put `tensor` among `tensors`, once however often it comes; return its record."""
    if id(tensor) not in names:
        names[id(tensor)] = str(len(tensors)), tensor  # which lives on, so that no other gets its id
        tensors[str(len(tensors))] = tensor.detach().clone().contiguous().cpu()
    # Sums over a tensor depend on the order that it lies in, as channels_last does.
    laid = torch.empty_like(tensor, device="meta")
    record: dict[str, Any] = {"tensor": names[id(tensor)][0]}
    return record if laid.is_contiguous() else record | {"stride": list(laid.stride())}


def rng_states() -> dict[str, Any]:
    """Return where torch's random generators are: the CPU's, and those of every device in use."""
    found: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_rng_states(states: dict[str, Any]) -> None:
    """Let torch's generators go on from where :func:`rng_states` found them."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return all that `optimizer` carries from step to step.

    That is its ``state_dict`` and what some of timm's keep beside it: counts, random generators, and the optimizer
    that another one wraps.
    """
    own: dict[str, Any] = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, torch.Generator):
            own[name] = value.get_state()
        elif isinstance(value, random.Random):
            own[name] = value.getstate()
        elif isinstance(value, Optimizer):
            own[name] = optimizer_state(value)
        elif type(value) in (int, float) and not name.startswith("__"):
            own[name] = value
    return {"state": optimizer.state_dict(), "own": own}


def load_optimizer_state(optimizer: Optimizer, carried: dict[str, Any]) -> None:
    """Let `optimizer` go on from what :func:`optimizer_state` returned of one built alike."""
    for name, value in carried["own"].items():
        mine = getattr(optimizer, name)
        if isinstance(mine, torch.Generator):
            mine.set_state(value)
        elif isinstance(mine, random.Random):
            mine.setstate(value)
        elif isinstance(mine, Optimizer):
            load_optimizer_state(mine, value)
        else:
            setattr(optimizer, name, value)
    optimizer.load_state_dict(carried["state"])  # last: one that wraps another shares its parameter groups from here


def shallow_dict(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name; unlike ``dataclasses.asdict``, nothing is copied."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
