"""Conversion of a config to plain JSON values and back."""

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")

_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # except those that encode bytes of a file name


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
    """Return the config that :func:`to_dict` converted, with every value checked against its type.

    Raises
    ------
    TransferError
        `values` is no dict, or a setting is unknown, missing or of another type.
    """
    if not isinstance(values, dict):
        raise TransferError(f"{kind.__name__} is {_abbreviate(values)}, not settings by name")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise TransferError(f"{kind.__name__} has no setting {_abbreviate(key)}{did_you_mean(key[:99], hints)}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise TransferError(f"{kind.__name__} lacks {field.name}")
    return kind(**{key: _convert(hints[key], value, f"{kind.__name__}: {key}") for key, value in values.items()})


def iter_settings(config: Any, default: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, value and default of each setting of a nested config."""
    default = type(config)() if default is None else default
    for field in dataclasses.fields(config):
        value, field_default = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from iter_settings(value, field_default)
        else:
            yield field.name, value, field_default


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Return the plain JSON `value` as the type `hint`."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        for option in options:
            if _is_instance(option, value):
                return _convert(option, value, name)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    elif origin is tuple and isinstance(value, list | tuple):
        if options[-1] is Ellipsis:
            return tuple(_convert(options[0], item, name) for item in value)
        if len(options) == len(value):
            return tuple(_convert(option, item, name) for option, item in zip(options, value, strict=True))
    elif origin is dict and isinstance(value, dict):
        return {key: _convert(options[1], item, name) for key, item in value.items()}
    elif origin in (None, typing.Literal) and _is_instance(hint, value):
        return Path(value) if hint is Path else value
    expected = getattr(hint, "__name__", str(hint)) if origin is None else str(hint).replace("typing.", "")
    raise TransferError(f"{name} is {_abbreviate(value)}, not {expected}")


def _is_instance(hint: Any, value: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return any(value == option and type(value) is type(option) for option in typing.get_args(hint))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str) and not _LONE_SURROGATES.search(value)
    if dataclasses.is_dataclass(hint):
        return isinstance(value, dict)
    kind = typing.get_origin(hint) or hint
    return isinstance(value, (list, tuple) if kind is tuple else kind)


def _abbreviate(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}..."
