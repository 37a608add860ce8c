"""A config as plain JSON values, and as a list of settings; :mod:`transfer.config.checked` reads it back."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON values.

    Examples
    --------
    >>> from transfer.config.shared import ViewConfig
    >>> to_dict(ViewConfig(test_sizes=(224, 256)))
    {'test_crops': 1, 'test_sizes': [224, 256]}
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(config)


def complete_old_config(values: Any) -> Any:
    """Return the plain `values` of a run's config with the options that its version lacked, as they were then.

    Examples
    --------
    >>> complete_old_config({"backbone": {"backbone": "resnet18"}})
    {'backbone': {'engine': 'torch', 'backbone': 'resnet18'}}
    """
    if not isinstance(values, dict):
        return values
    absent = {"engine": "torch"} if isinstance(values.get("backbone"), str) else {}
    return absent | {key: complete_old_config(value) for key, value in values.items()}


def iter_settings(config: Any, default: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, value and default of each setting of a nested config."""
    default = type(config)() if default is None else default
    for field in dataclasses.fields(config):
        value, field_default = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from iter_settings(value, field_default)
        else:
            yield field.name, value, field_default


def iter_paths(config: Any) -> Iterator[Path]:
    """Yield every path in a nested config, those in tuples too."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from iter_paths(value)
        yield from (path for path in (value if isinstance(value, tuple) else [value]) if isinstance(path, Path))
