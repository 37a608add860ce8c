"""Grad-CAM: where in an image lies what speaks for a class (Selvaraju et al. 2017)."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.model import TransferModel


def compute_gradcam(
    model: TransferModel, images: Tensor, classes: np.ndarray, head: str = "object"
) -> np.ndarray | None:
    """Return for each image where the network's last maps speak for a class.

    The maps are summed, each weighted by the mean gradient of the class's logit with respect to it; what speaks
    against the class counts as nothing.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, 3, H, W)
        Prepared for the backbone.
    classes : ndarray of int64, shape (N,)
        Which class of the softmax head to explain, for each image.

    Returns
    -------
    ndarray of float32, shape (N, h, w), or None
        Each image's in [0, 1], 1 being its own largest value (or all 0, where nothing speaks for the class, and where
        a network that diverged has no numbers). None where the network has no maps of more than a pixel.
    """
    model.eval()
    backbone = model.backbone
    device = next(backbone.parameters()).device
    pixels = backbone.preprocessing.normalise(images.to(device))
    last = _last_with_maps(backbone, pixels[:1])
    if last is None:
        return None
    taken: list[Tensor] = []

    def take(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        taken[:] = [output.detach().requires_grad_()]
        return taken[0].clone()  # what comes next may work in place

    with torch.inference_mode(False), torch.enable_grad(), last.register_forward_hook(take):
        scores = model.heads(backbone(pixels))[head]
        chosen = scores.gather(1, torch.from_numpy(classes).to(device)[:, None]).sum()
        (maps,) = taken
        (gradient,) = torch.autograd.grad(chosen, maps)
    heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1).relu().float()
    heat = (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).nan_to_num(0.0)
    return heat.cpu().numpy()


def _last_with_maps(backbone: Backbone, pixels: Tensor) -> nn.Module | None:
    """Return the last part of the network that puts out maps: before what pools them."""
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found[:] = [module]

    with ExitStack() as hooks, torch.no_grad():
        for path in (path for stage in backbone.stages for path in stage.modules):
            hooks.enter_context(backbone.network.get_submodule(path).register_forward_hook(look))
        backbone(pixels)
    return found[0] if found else None
