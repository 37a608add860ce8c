"""Grad-CAM: which parts of an image speak for a class (Selvaraju et al. 2017)."""

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from transfer.backbones.backbone import Backbone
from transfer.backbones.providers.joined_models import JoinedNetwork
from transfer.model import TransferModel


def compute_gradcam(model: TransferModel, images: Tensor, classes: np.ndarray) -> np.ndarray | None:
    """Return a heat map for each image: where the last feature maps speak for an object.

    The feature maps are summed, each weighted by the mean gradient of the class's logit with respect to it; negative
    sums are set to 0. Of networks side by side the sums are added before that, at the size of the largest maps.

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
    lasts = _last_with_maps(backbone, pixels[:1])
    if not lasts:
        return None
    captured: dict[nn.Module, Tensor] = {}

    def capture(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # from here on only: the layers below take most of the time
        captured[module] = output.detach().requires_grad_()
        return captured[module].clone()  # the next module may work in place

    def start(module: nn.Module, inputs: tuple) -> None:
        torch.set_grad_enabled(False)  # after the maps of another network

    with torch.inference_mode(False), torch.no_grad(), ExitStack() as hooks:
        for network in _list_networks(backbone):
            hooks.enter_context(network.register_forward_pre_hook(start))
        for last in lasts:
            hooks.enter_context(last.register_forward_hook(capture))
        scores = model.heads(backbone(pixels))["object"]
        chosen = scores.gather(1, torch.from_numpy(classes).to(device)[:, None]).sum()
        maps = list(captured.values())
        gradients = torch.autograd.grad(chosen, maps)
    parts = [
        (g.mean((2, 3), keepdim=True) * m.detach()).sum(1, keepdim=True) for g, m in zip(gradients, maps, strict=True)
    ]
    size = max((part.shape[2:] for part in parts), key=lambda shape: shape.numel())
    heat = torch.stack([_resize(part, size) for part in parts]).sum(0)[:, 0].relu().float()
    heat = (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).nan_to_num(0.0)
    return heat.cpu().numpy()


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    """Return `maps` (N, 1, h, w) at another size, as they are if they have it."""
    return maps if maps.shape[2:] == size else functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def _list_networks(backbone: Backbone) -> list[nn.Module]:
    """Return the network of a backbone, or its networks side by side."""
    network = backbone.network
    return list(network.networks) if isinstance(network, JoinedNetwork) else [network]


def _last_with_maps(backbone: Backbone, pixels: Tensor) -> list[nn.Module]:
    """Return the last module, before pooling, whose output is a feature map; of networks side by side that of each."""
    networks = _list_networks(backbone)
    stages = [backbone.network.get_submodule(path) for stage in backbone.stages for path in stage.modules]
    found: dict[int, nn.Module] = {}

    def record(number: int, module: nn.Module, inputs: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found[number] = module

    with ExitStack() as hooks, torch.no_grad():
        for number, network in enumerate(networks):
            for module in stages if len(networks) == 1 else network.children():
                hooks.enter_context(module.register_forward_hook(partial(record, number)))
        backbone(pixels)
    return list(found.values())
