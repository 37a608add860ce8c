"""Pretrained CNNs from timm, torchvision, this package and plugins, all as one kind of :class:`Backbone`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone, Stage
    from transfer.backbones.registry import register_backbone
    from transfer.backbones.weights import load

__all__ = ["Backbone", "Stage", "load", "register_backbone"]
_MODULES = {"Backbone": "backbone", "Stage": "backbone", "load": "weights", "register_backbone": "registry"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the catalogue needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"transfer.backbones.{_MODULES[name]}"), name)
