"""Normalisation layers: which modules and tensors they are, and a gradient that they cannot learn without."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

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


def input_gradients(network: "nn.Module") -> list["RemovableHandle"]:
    """Let each group norm of `network` that learns have the gradient of its input too, if only to be thrown away.

    On the CPU torch (2.6 to 2.11 at least) ends with a segmentation fault in the backward pass of channels-last input
    that needs none, which is what frozen layers put out.
    """
    from torch import nn

    learn = [m for m in network.modules() if isinstance(m, nn.GroupNorm) and m.affine and m.weight.requires_grad]
    return [module.register_forward_pre_hook(_wants_gradient) for module in learn]


def _wants_gradient(module: "nn.Module", inputs: tuple["Tensor"]) -> tuple["Tensor"] | None:
    import torch

    (x,) = inputs
    return (x.detach().requires_grad_(),) if torch.is_grad_enabled() and not x.requires_grad else None
