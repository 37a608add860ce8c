"""Normalisation layers: which modules they are, and which tensors are theirs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from transfer.backbones.backbone import Backbone


def is_norm(module: "nn.Module") -> bool:
    """Return whether `module` is a normalisation layer (Batch, Layer, Group, Instance, RMS, Sync, frozen, ...)."""
    from torch.nn.modules.batchnorm import _NormBase

    owns = bool(module._parameters or module._buffers)
    name = type(module).__name__.lower()
    return owns and (isinstance(module, _NormBase) or ("norm" in name and "normfree" not in name))


def norm_tensors(backbone: "Backbone") -> set[str]:
    """Return the names of all parameters and buffers of normalisation layers, as in ``backbone.network``."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in backbone.network.named_modules()
        if is_norm(module)
        for name in (*module._parameters, *module._buffers)
    }
