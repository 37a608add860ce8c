"""A config -> the command line that makes it."""

import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any

from transfer.config.adapt import AdaptConfig
from transfer.config.train import CompareConfig, TrainConfig

KINDS: dict[str, type] = {"train": TrainConfig, "adapt": AdaptConfig, "compare": CompareConfig}


def command(config: Any) -> str:
    """Return the command line that makes `config`, which names only what is not the default.

    Examples
    --------
    >>> from transfer.config.train import DataConfig, LearnConfig
    >>> command(TrainConfig(data=DataConfig("my pictures"), learn=LearnConfig(lr=0.01, refit=False)))
    "transfer train --data 'my pictures' --lr 0.01 --no-refit"
    """
    words = ["transfer", next(name for name, kind in KINDS.items() if isinstance(config, kind))]
    for name, value, default in settings(config):
        if value != default:
            words += _words(name.replace("_", "-"), value)
    return shlex.join(words)


def settings(config: Any, default: Any = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield each setting of a nested config: name, value and default."""
    default = type(config)() if default is None else default
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from settings(value, usual)
        else:
            yield field.name, value, usual


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
