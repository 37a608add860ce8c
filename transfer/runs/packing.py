"""Pack the state of a run into named tensors and a JSON record, and unpack it bit for bit."""

import random
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

Tensors = dict[str, Tensor]


def pack(value: Any) -> tuple[Tensors, Any]:
    """Return the tensors of `value` by name, and the record from which :func:`unpack` restores it.

    It may hold tensors and numeric arrays of any dtype, numbers (integers of any size), strings, None, torch's dtypes;
    dicts, lists and tuples of these. Anything else raises a TypeError.

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
        raise TypeError(f"cannot save a {type(value).__name__}")

    return tensors, plain(value)


def unpack(tensors: Tensors, record: Any) -> Any:
    """Invert :func:`pack`; tensors are on the CPU, with their memory layout."""
    if isinstance(record, list):
        return [unpack(tensors, item) for item in record]
    if not isinstance(record, dict):
        return record
    if "tensor" in record:
        tensor = tensors[record["tensor"]]
        stride = record.get("stride", tensor.stride())
        # Memory allocated by torch: the rounding of sums depends on alignment.
        return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
    if "dtype" in record:
        return getattr(torch, record["dtype"])
    if "array" in record:
        return unpack(tensors, record["array"]).numpy().reshape(record["shape"])
    if "tuple" in record:
        return tuple(unpack(tensors, item) for item in record["tuple"])
    return {unpack(tensors, key): unpack(tensors, item) for key, item in record["dict"]}


def _named(tensor: Tensor, tensors: Tensors, names: dict[int, tuple[str, Tensor]]) -> dict[str, Any]:
    """Add `tensor` to `tensors`, once even if it recurs; return its record."""
    if id(tensor) not in names:
        names[id(tensor)] = str(len(tensors)), tensor  # a reference, so that its id is not reused
        tensors[str(len(tensors))] = tensor.detach().clone().contiguous().cpu()
    # The rounding of sums depends on the memory order, such as channels_last.
    laid = torch.empty_like(tensor, device="meta")
    record: dict[str, Any] = {"tensor": names[id(tensor)][0]}
    return record if laid.is_contiguous() else record | {"stride": list(laid.stride())}


def get_rng_states() -> dict[str, Any]:
    """Return the states of torch's random generators, on the CPU and on every device in use."""
    found: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def set_rng_states(states: dict[str, Any]) -> None:
    """Restore the states of :func:`get_rng_states`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def get_optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return the ``state_dict`` of `optimizer`, and what some of timm's hold beside it.

    These are counts, random generators and a wrapped optimizer.
    """
    beside: dict[str, Any] = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, torch.Generator):
            beside[name] = value.get_state()
        elif isinstance(value, random.Random):
            beside[name] = value.getstate()
        elif isinstance(value, Optimizer):
            beside[name] = get_optimizer_state(value)
        elif type(value) in (int, float) and not name.startswith("__"):
            beside[name] = value
    return {"state": optimizer.state_dict(), "own": beside}


def load_optimizer_state(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Restore what :func:`get_optimizer_state` returned for an optimizer that was built like `optimizer`."""
    for name, value in saved["own"].items():
        present = getattr(optimizer, name)
        if isinstance(present, torch.Generator):
            _restore_generator(optimizer, name, value)
        elif isinstance(present, random.Random):
            present.setstate(value)
        elif isinstance(present, Optimizer):
            load_optimizer_state(present, value)
        else:
            setattr(optimizer, name, value)
    optimizer.load_state_dict(saved["state"])  # last: a wrapping optimizer shares the wrapped one's groups from here


def _restore_generator(optimizer: Optimizer, name: str, state: Tensor) -> None:
    """Restore the generator `name` of `optimizer` on the device of its parameters, to which timm's move it.

    The state of another kind of device means nothing there, and is ignored.
    """
    device = optimizer.param_groups[0]["params"][0].device
    present = getattr(optimizer, name)
    generator = present if present.device == device else torch.Generator(device)
    if generator.get_state().shape == state.shape:
        generator.set_state(state)
        setattr(optimizer, name, generator)


def shallow_dict(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name; unlike ``dataclasses.asdict``, nothing is copied."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
