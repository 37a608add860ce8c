"""Find normalisation layers and their parameters and buffers, BatchNorm statistics among them (frozen in apply.py)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from transfer.backbones.backbone import Backbone


def is_norm(module: "nn.Module") -> bool:
    """Return whether `module` is a normalisation layer (Batch, Layer, Group, Instance, RMS, Sync, frozen, ...)."""
    from torch.nn.modules.batchnorm import _NormBase

    has_tensors = bool(module._parameters or module._buffers)
    name = type(module).__name__.lower()
    return has_tensors and (isinstance(module, _NormBase) or ("norm" in name and "normfree" not in name))


def find_norm_tensors(backbone: "Backbone") -> set[str]:
    """Return the names of all parameters and buffers of normalisation layers, as in ``backbone.network``."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in backbone.network.named_modules()
        if is_norm(module)
        for name in (*module._parameters, *module._buffers)
    }


def force_input_gradients(network: "nn.Module") -> list["RemovableHandle"]:
    """Make autograd compute the input gradient of every trained GroupNorm of `network`; return the hooks.

    Without it PyTorch (2.6 to 2.11 at least) ends with a segmentation fault on the CPU: in the backward pass of a
    GroupNorm whose channels-last input requires no gradient, as the output of frozen layers.
    """
    from torch import nn

    trained = [m for m in network.modules() if isinstance(m, nn.GroupNorm) and m.affine and m.weight.requires_grad]
    return [module.register_forward_pre_hook(_require_gradient) for module in trained]


def _require_gradient(module: "nn.Module", inputs: tuple["Tensor"]) -> tuple["Tensor"] | None:
    import torch

    (x,) = inputs
    return (x.detach().requires_grad_(),) if torch.is_grad_enabled() and not x.requires_grad else None
