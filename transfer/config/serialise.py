"""A config as plain JSON values, and back."""

import dataclasses
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")

_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of characters, other than what stands for a file name's bytes


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values.

    Examples
    --------
    >>> from transfer.config.train import RunConfig
    >>> from_dict(RunConfig, to_dict(RunConfig(out=Path("runs/a"), seeds=(0, 1)))).seeds
    (0, 1)
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(config)


def from_dict(kind: type[T], values: Any) -> T:
    """Return the config that :func:`to_dict` wrote, every value checked against its type.

    Raises
    ------
    TransferError
        Not a value by name for each setting: one that the config does not have, or lacks, or of another type.
    """
    if not isinstance(values, dict):
        raise TransferError(f"{kind.__name__} is {_short(values)}, not settings by name")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise TransferError(f"{kind.__name__} has no setting {_short(key)}{did_you_mean(key[:99], hints)}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise TransferError(f"{kind.__name__} lacks {field.name}")
    return kind(**{key: _rebuilt(hints[key], value, f"{kind.__name__}: {key}") for key, value in values.items()})


def _rebuilt(hint: Any, value: Any, name: str) -> Any:
    """Return plain JSON as what the type `hint` says."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        for option in options:
            if _may_be(option, value):
                return _rebuilt(option, value, name)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    elif origin is tuple and isinstance(value, list | tuple):
        if options[-1] is Ellipsis:
            return tuple(_rebuilt(options[0], item, name) for item in value)
        if len(options) == len(value):
            return tuple(_rebuilt(option, item, name) for option, item in zip(options, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _rebuilt(options[1], item, name) for key, item in value.items()}
    elif origin in (None, typing.Literal) and _may_be(hint, value):
        return Path(value) if hint is Path else value
    said = getattr(hint, "__name__", str(hint)) if origin is None else str(hint).replace("typing.", "")
    raise TransferError(f"{name} is {_short(value)}, not {said}")


def _may_be(hint: Any, value: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return any(value == option and type(value) is type(option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str) and not _HALVES.search(value)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    kind = typing.get_origin(hint) or hint
    return isinstance(value, (list, tuple) if kind is tuple else kind)


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) < 60 else f"{said[:50]}..."
