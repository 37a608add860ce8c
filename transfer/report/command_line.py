"""The command line that reproduces a config."""

import shlex
from collections.abc import Collection
from typing import Any

from transfer.config.adapt import AdaptConfig
from transfer.config.checked import from_dict
from transfer.config.serialise import iter_settings
from transfer.config.train import CompareConfig, TrainConfig

ALWAYS_RECOMMENDED: dict[str, tuple[str, ...]] = {"advise": ("data", "backbone", "policy")}
ALWAYS_RECOMMENDED |= dict.fromkeys(
    ("search", "lr-find"), (*ALWAYS_RECOMMENDED["advise"], "optimizer", "batch_size", "lr")
)
"""Options that a recommended command names even where they are the default, by the command that recommends it."""
RUN_CONFIGS: dict[str, type] = {"train": TrainConfig, "adapt": AdaptConfig, "compare": CompareConfig}


def command_line(config: Any, always: Collection[str] = ()) -> str:
    """Return the command line that reproduces `config`; it names options that differ from their defaults, and `always`.

    Examples
    --------
    >>> from transfer.config.train import DataConfig, LearnConfig
    >>> command_line(TrainConfig(data=DataConfig("my pictures"), learn=LearnConfig(lr=0.01, refit=False)))
    "transfer train 'my pictures' --lr 0.01 --no-refit"
    """
    words = ["transfer", next(name for name, kind in RUN_CONFIGS.items() if isinstance(config, kind))]
    for name, value, default in iter_settings(config):
        if value != default or name in always:
            for each in value if name == "plugin" else (value,):  # a repeatable option
                words += _option(name.replace("_", "-"), each)
    if "--data" in words:  # the images come first, and need no name
        place = words.index("--data")
        words = [*words[:2], words[place + 1], *words[2:place], *words[place + 2 :]]
    return shlex.join(words)


def recommended_command(result: dict[str, Any], key: str = "recommended") -> str:
    """Return the command line of the run that the `result` of advise, search or lr-find recommends under `key`."""
    return command_line(from_dict(TrainConfig, result[key]), ALWAYS_RECOMMENDED[result["command"]])


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
