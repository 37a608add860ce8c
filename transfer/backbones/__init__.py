"""Pretrained CNNs from timm, torchvision and this package, all as one kind of :class:`Backbone`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.backbones.backbone import Backbone, Stage
    from transfer.backbones.loading import load

__all__ = ["Backbone", "Stage", "load"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the catalogue comes without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transfer.backbones import backbone, loading

    return getattr(loading if name == "load" else backbone, name)
