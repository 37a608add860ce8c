"""Values of a config, checked against its type hints: the same for command line, Python, config.json and estimator.

A hint also says the range of a number (:mod:`transfer.config.ranges`) and whether a sequence is written with commas
(:mod:`transfer.config.lists`).
"""

import contextlib
import dataclasses
import functools
import numbers
import os
import re
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from transfer.config.ranges import NOT_EMPTY, Within
from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")

_UNWRITABLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # NUL, surrogates but those that are bytes of a file name


class Config:
    """Base of the configs. Its fields are converted to their types when it is created.

    A text is accepted for a path, with ``~``; a path for a text; a list, range or array for a tuple; one name or path
    for a tuple of them, and ``"a,b"`` where the command line takes commas; numbers of NumPy as those of Python.

    Raises
    ------
    TransferError
        A value is of another type, no choice, out of range, NaN or infinite.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Toy(Config):
    ...     balance: typing.Literal["none", "loss"] = "none"
    ...     out: Path | None = None
    >>> Toy(out="runs/a").out.name
    'a'
    >>> Toy("los")
    Traceback (most recent call last):
    transfer.errors.TransferError: --balance 'los' (did you mean 'loss'?): it must be one of none, loss
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in get_hints(kind).items():
            object.__setattr__(self, name, convert(hint, getattr(self, name), _get_label(name, hint)))


@functools.cache
def get_hints(kind: type) -> dict[str, Any]:
    """Return the type hint of each field of a dataclass, with annotations."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def from_dict(kind: type[T], values: Any) -> T:
    """Return the dataclass whose fields :func:`transfer.config.serialise.to_dict` wrote, with every value checked.

    Raises
    ------
    TransferError
        `values` is no dict, or a setting is unknown, missing or of another type.
    """
    if not isinstance(values, dict):
        raise TransferError(f"{kind.__name__} is {_abbreviate(values)}, not settings by name")
    hints = get_hints(typing.cast(Any, kind))
    for key in values:
        if key not in hints:
            near = did_you_mean(str(key)[:99], hints)
            raise TransferError(f"{kind.__name__} has no setting {_abbreviate(key)}{near}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise TransferError(f"{kind.__name__} lacks {field.name}")
    if issubclass(kind, Config):
        return kind(**values)
    return kind(**{key: convert(hints[key], value, f"{kind.__name__}: {key}") for key, value in values.items()})


def convert(hint: Any, value: Any, label: str, bounds: tuple[Any, ...] = ()) -> Any:
    """Return `value` as the type `hint`.

    Parameters
    ----------
    hint : type
        ``bool``, ``int``, ``float``, ``str``, ``Path``, a class, or ``Literal``, ``tuple``, ``dict``, ``Annotated`` and
        unions of these.
    label : str
        What the message calls the value.
    bounds : tuple
        Annotations of a type that contains `hint`.

    Raises
    ------
    TransferError
        It is of another type, or outside its range.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(value, "tolist"):  # an array or number of NumPy or torch
        value = value.tolist()
    if origin is Annotated:
        return convert(options[0], value, label, (*bounds, *hint.__metadata__))
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in options:
            return None
        *others, last = (option for option in options if option is not types.NoneType)
        for option in others:
            with contextlib.suppress(TransferError):
                return convert(option, value, label, bounds)
        return convert(last, value, label, bounds)
    if origin is tuple:
        return _convert_items(options, value, label, bounds)
    if origin is dict and isinstance(value, dict):
        return {key: convert(options[1], item, label, bounds) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    ranges = [bound for bound in bounds if isinstance(bound, Within)]
    if _is_number(value) and any(value not in bound for bound in ranges):
        raise TransferError(f"{label} {_abbreviate(value)}: it must be {ranges[0]}")
    if value in ("", ()) and NOT_EMPTY in bounds:
        raise TransferError(f"{label} is empty: give a value")
    if (converted := _convert_plain(hint, value)) is None:
        near = did_you_mean(value, map(str, options)) if isinstance(value, str) else ""
        what = ", ".join(map(str, [_describe(hint), *ranges]))
        raise TransferError(f"{label} {_abbreviate(value)}{near}: it must be {what}")
    return converted


def _convert_items(options: tuple[Any, ...], value: Any, label: str, bounds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the items of a tuple whose type has these `options`."""
    items: Any = value
    if isinstance(value, str | os.PathLike):  # one name or path; never one number: is ``seeds="3"`` one seed or three?
        commas = any(isinstance(bound, tyro.constructors.PrimitiveConstructorSpec) for bound in bounds)
        parts = [part.strip() for part in os.fspath(value).split(",")] if commas else [value]
        is_name = typing.get_origin(options[0]) is Literal or options[0] in (str, Path)
        items = [part for part in parts if part] if is_name else None
    if not isinstance(items, Sequence):
        raise TransferError(
            f"{label} {_abbreviate(value)}: it must be a list or tuple, each item {_describe(options[0])}"
        )
    if NOT_EMPTY in bounds and not items:
        raise TransferError(f"{label} is empty: give one value or more")
    options = options[:1] * len(items) if options[-1] is Ellipsis else options
    if len(options) != len(items):
        raise TransferError(f"{label} {_abbreviate(value)}: it must have {len(options)} items")
    ranges = tuple(bound for bound in bounds if isinstance(bound, Within))
    return tuple(convert(option, item, label, ranges) for option, item in zip(options, items, strict=True))


def _convert_plain(hint: Any, value: Any) -> Any:
    """Return `value` as a choice, number, text, path or class, or None if it is none."""
    if typing.get_origin(hint) is Literal:
        return next((c for c in typing.get_args(hint) if type(c) is type(value) and c == value), None)
    if hint is int:
        return int(value) if isinstance(value, numbers.Integral) and _is_number(value) else None
    if hint is float:
        return float(value) if _is_number(value) and abs(value) <= sys.float_info.max else None
    if hint in (str, Path):
        text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
        if not isinstance(text, str) or _UNWRITABLE.search(text) or (hint is Path and not text):
            return None
        return _expand_user(text) if hint is Path else str(text)
    return value if isinstance(value, typing.get_origin(hint) or hint) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _expand_user(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a folder that is called so
        return Path(text)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    words = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}
    return words.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def _get_label(name: str, hint: Any) -> str:
    """Return what a message calls a field: an option by its spelling on the command line, anything else by its name."""
    options = typing.get_args(hint)
    is_word = tyro.conf.Positional in options or dataclasses.is_dataclass(hint)
    return name if is_word else f"--{name.replace('_', '-')}"


def _abbreviate(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}..."
