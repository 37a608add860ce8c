"""Parameters of the estimators -> the configs of `transfer train` and `transfer adapt`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transfer.config.adapt import AdaptConfig
from transfer.config.train import TrainConfig
from transfer.data.pixel_files import InputError

CONFIG_PARTS: dict[str, tuple[str | None, str | None]] = {
    **dict.fromkeys(("backbone", "weights", "image_size", "crop"), ("backbone", "backbone")),
    "policy": ("policy", "method"),
    **dict.fromkeys(("heads", "hidden"), ("heads", None)),
    "optimizer": ("learn", None),
    "unlabelled": ("data", None),
    **dict.fromkeys(
        ("lr", "weight_decay", "epochs", "batch_size", "augment", "calibrate", "device"), ("learn", "steps")
    ),
    "method": (None, "method"),
    "cache": ("cache", "cache"),
}
"""The parts of a TrainConfig and of an AdaptConfig that hold a parameter, under the same name."""


def override_config(
    config: TrainConfig | AdaptConfig | None, parameters: Mapping[str, Any], *, adapting: bool
) -> TrainConfig | AdaptConfig:
    """Return `config`, by default that of the command line, with the `parameters` that are not None.

    Raises
    ------
    InputError
        A parameter without effect, or a config of the other kind.
    TransferError
        A value that the config does not take.
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
        config = replace(config, **{part_name: replace(part, **{name: value})})
    return config
