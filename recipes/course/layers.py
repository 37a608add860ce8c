"""Statistics of each layer: standard deviation of activations and gradients, and dead units."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MIN_RELATIVE_RANGE = 1e-6  # of a live unit's outputs over images, relative to their largest magnitude


def layer_statistics(network: nn.Sequential, images: Tensor, loss: Callable[[Tensor], Tensor]) -> list[dict[str, Any]]:
    """Return a record per layer, from input to output, after one forward and backward pass on a copy of `network`.

    Parameters
    ----------
    network : nn.Sequential
        From :func:`course.networks.build`. Norm layers use the statistics of `images`.
    images : Tensor, shape (B, 3, H, W)
    loss : callable
        Returns the mean loss per image from logits.

    Returns
    -------
    list of dict
        ``layer``; ``activation`` and ``gradient``: standard deviation, over images and units, of the layer's output and
        of the gradient of an image's loss with respect to it; ``dead``: fraction of units whose output is the same for
        all images (an inactive ReLU, a saturated sigmoid).
    """
    network = copy.deepcopy(network).train()
    outputs: dict[str, Tensor] = {}

    def make_hook(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        return hook

    for name, module in network.named_children():
        if name == "output" or hasattr(module, "activation"):
            module.register_forward_hook(make_hook(name))
    with torch.random.fork_rng(), torch.enable_grad():
        (loss(network(images)) * len(images)).backward()
    return [
        {
            "layer": name,
            "activation": float(out.detach().std()),
            "gradient": float(out.grad.std()) if out.grad is not None else 0.0,
            "dead": float(find_dead_units(out.detach()).float().mean()),
        }
        for name, out in outputs.items()
    ]


def find_dead_units(outputs: Tensor) -> Tensor:
    """Return a boolean per unit, shape (C,): whether it is constant over images and positions of (B, C, ...).

    Examples
    --------
    >>> find_dead_units(torch.tensor([[0.0, 1.0, 5.0], [0.0, 2.0, 5.0]])).tolist()
    [True, False, True]
    """
    units = outputs.transpose(0, 1).flatten(1)
    return units.amax(1) - units.amin(1) <= MIN_RELATIVE_RANGE * units.abs().amax(1)
