"""What reaches each layer: the spread of its activations, of the gradient at them, and its dead units."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

VARIES = 1e-6  # of its largest size: what a unit that is not dead varies by at the least


def layer_statistics(network: nn.Sequential, images: Tensor, loss: Callable[[Tensor], Tensor]) -> list[dict[str, Any]]:
    """Return a record per layer, the first one first, from one pass forward and back; `network` stays as it is.

    Parameters
    ----------
    network : nn.Sequential
        As :func:`course.networks.build` gives it. Norm layers use these images' own statistics.
    images : Tensor, shape (B, 3, H, W)
    loss : callable
        From logits to the mean loss of an image.

    Returns
    -------
    list of dict
        ``layer``; ``activation`` and ``gradient``: standard deviation over images and units of what the layer puts out,
        and of one image's loss by that; ``dead``: fraction of units whose output is the same whatever the image (a ReLU
        that never opens, a saturated sigmoid).
    """
    network = copy.deepcopy(network).train()
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return hook

    for name, module in network.named_children():
        if name == "output" or hasattr(module, "activation"):
            module.register_forward_hook(keep(name))
    with torch.random.fork_rng(), torch.enable_grad():
        (loss(network(images)) * len(images)).backward()
    return [
        {
            "layer": name,
            "activation": float(out.detach().std()),
            "gradient": float(out.grad.std()) if out.grad is not None else 0.0,
            "dead": float(dead_units(out.detach()).float().mean()),
        }
        for name, out in outputs.items()
    ]


def dead_units(outputs: Tensor) -> Tensor:
    """Return a boolean per unit, shape (C,): whether it is the same for all images (and places) of (B, C, ...).

    Examples
    --------
    >>> dead_units(torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 5.0]])).tolist()
    [True, False, True]
    """
    units = outputs.transpose(0, 1).flatten(1)
    return units.amax(1) - units.amin(1) <= VARIES * units.abs().amax(1)
