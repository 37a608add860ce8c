"""Parameters of the estimators -> the configs of `transfer train` and `transfer adapt`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from transfer.config.adapt import AdaptConfig
from transfer.config.train import TrainConfig
from transfer.data.pixel_files import InputError
from transfer.errors import did_you_mean

CONFIG_PARTS: dict[str, tuple[str | None, str | None]] = {
    **dict.fromkeys(("backbone", "weights", "image_size", "crop"), ("backbone", "backbone")),
    "policy": ("policy", "method"),
    **dict.fromkeys(("heads", "hidden"), ("heads", None)),
    "optimizer": ("learn", None),
    **dict.fromkeys(
        ("lr", "weight_decay", "epochs", "batch_size", "augment", "calibrate", "device"), ("learn", "steps")
    ),
    "method": (None, "method"),
    "cache": ("cache", "cache"),
}
"""The parts of a TrainConfig and of an AdaptConfig that hold a parameter, under the same name."""

CONVERTED: dict[str, Callable[[Any], Any]] = {"weights": Path, "hidden": tuple, "method": lambda name: (name,)}
"""What becomes of parameters that a config holds in another form."""


def override_config(
    config: TrainConfig | AdaptConfig | None, parameters: Mapping[str, Any], *, adapting: bool
) -> TrainConfig | AdaptConfig:
    """Return `config`, by default that of the command line, with the `parameters` that are not None.

    Raises
    ------
    InputError
        A parameter without effect, a value that is none of the choices, or a config of the other kind.
    """
    kind, other = (AdaptConfig, TrainConfig) if adapting else (TrainConfig, AdaptConfig)
    config = kind() if config is None else config
    if not isinstance(config, kind):
        targets = "target domains" if adapting else "no target domain"
        raise InputError(f"sample_domain has {targets}: config must be a {kind.__name__}, not a {other.__name__}")
    for name, parts in CONFIG_PARTS.items():
        value, part_name = parameters[name], parts[adapting]
        if value is None or (part_name is None and name == "method"):
            continue
        if part_name is None:
            raise InputError(f"{name}={value!r} has no effect if sample_domain has target domains: leave it out")
        part = getattr(config, part_name)
        check_choice(part, name, value)
        value = CONVERTED[name](value) if name in CONVERTED else value
        config = replace(config, **{part_name: replace(part, **{name: value})})
    return config


def check_choice(part: Any, name: str, value: Any) -> None:
    """Raise if a setting with a list of choices does not have `value` among them; `part` is a config or its class."""
    hint = get_type_hints(part if isinstance(part, type) else type(part))[name]
    known = get_args(hint) if get_origin(hint) is Literal else ()
    if known and value not in known:
        raise InputError(f"{name}={value!r}{did_you_mean(str(value), known)}: one of {', '.join(map(repr, known))}")
