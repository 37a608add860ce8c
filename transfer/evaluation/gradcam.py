"""Grad-CAM: which parts of an image speak for a class (Selvaraju et al. 2017)."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.model import TransferModel


def compute_gradcam(model: TransferModel, images: Tensor, classes: np.ndarray) -> np.ndarray | None:
    """Return a heat map for each image: where the last feature maps speak for an object.

    The feature maps are summed, each weighted by the mean gradient of the class's logit with respect to it; negative
    sums are set to 0.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, 3, H, W)
        Prepared for the backbone.
    classes : ndarray of int64, shape (N,)
        For each image, the object to explain.

    Returns
    -------
    ndarray of float32, shape (N, h, w), or None
        In [0, 1], each divided by its maximum; all 0 where nothing speaks for the class, or where the network's
        outputs are NaN. None if the network has no feature maps larger than one pixel.
    """
    model.eval()
    backbone = model.backbone
    device = next(backbone.parameters()).device
    pixels = backbone.preprocessing.normalise(images.to(device))
    last = _last_with_maps(backbone, pixels[:1])
    if last is None:
        return None
    captured: list[Tensor] = []

    def capture(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on only: the layers below take most of the time
        captured[:] = [output.detach().requires_grad_()]
        return captured[0].clone()  # the next module may work in place

    with torch.inference_mode(False), torch.no_grad(), last.register_forward_hook(capture):
        scores = model.heads(backbone(pixels))["object"]
        chosen = scores.gather(1, torch.from_numpy(classes).to(device)[:, None]).sum()
        (maps,) = captured
        (gradient,) = torch.autograd.grad(chosen, maps)
    heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1).relu().float()
    heat = (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).nan_to_num(0.0)
    return heat.cpu().numpy()


def _last_with_maps(backbone: Backbone, pixels: Tensor) -> nn.Module | None:
    """Return the last module of the backbone, before pooling, whose output is a feature map."""
    found: list[nn.Module] = []

    def record(module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found[:] = [module]

    with ExitStack() as hooks, torch.no_grad():
        for path in (path for stage in backbone.stages for path in stage.modules):
            hooks.enter_context(backbone.network.get_submodule(path).register_forward_hook(record))
        backbone(pixels)
    return found[0] if found else None
