"""A config as plain JSON values, and back."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from transfer.errors import TransferError, did_you_mean

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values.

    Examples
    --------
    >>> from transfer.config import RunConfig
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


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Return the config that :func:`to_dict` wrote.

    Raises
    ------
    TransferError
        A key that the config does not have.
    """
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise TransferError(f"{kind.__name__} has no setting {key!r}{did_you_mean(key, hints)}")

    def rebuild(hint: Any, value: Any) -> Any:
        options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
        if isinstance(value, dict):
            return from_dict(hint, value)
        if isinstance(value, list):
            return tuple(value)
        return Path(value) if isinstance(value, str) and Path in options else value

    return kind(**{key: rebuild(hints[key], value) for key, value in values.items()})
