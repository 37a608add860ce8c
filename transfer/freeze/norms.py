"""Find normalisation layers and their parameters and buffers, BatchNorm statistics among them (frozen in apply.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transfer.errors import TransferError

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


def count_least_rows(network: "nn.Module") -> int:
    """Return how many images a step of training takes at least: 2 where statistics are learned, which need a variance.

    Call it on a network in training mode.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    return 2 if any(isinstance(m, _BatchNorm) and m.training for m in network.modules()) else 1


def choose_batch_size(rows: int, size: int, least: int) -> int:
    """Return `size`, or the next larger one whose last batch of `rows` images has `least` (1 or 2) or more.

    Examples
    --------
    >>> choose_batch_size(129, 64, 2), choose_batch_size(129, 64, 1), choose_batch_size(130, 64, 2)
    (65, 64, 64)
    """
    while least > 1 and rows > 1 and rows % size == 1:
        size += 1
    return size


@contextmanager
def refuse_single_values() -> Iterator[None]:
    """Raise in one line where BatchNorm, in a network that runs within the context, is to learn from one value.

    Raises
    ------
    TransferError
        A batch of one image, whose features have no position besides.
    """
    try:
        yield
    except ValueError as error:
        if "Expected more than 1" not in str(error):
            raise
        raise TransferError(
            "a step on one image has no variance for the BatchNorm statistics to learn from: use a larger --batch-size "
            "or more images, a smaller --accumulate, or --statistics frozen"
        ) from error


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
