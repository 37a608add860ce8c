"""A backbone by its name: built by its provider, filled with its pretrained weights."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from transfer.backbones import registry, stages
from transfer.backbones import weights as sources
from transfer.backbones.backbone import Backbone
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError


def load(
    name: str,
    *,
    weights: Path | None = None,
    store: Path | None = None,
    random_init: bool = False,
    seed: int = 0,
    classifier: bool | Literal["any"] = False,
    image_size: int | None = None,
) -> Backbone:
    """Return the backbone `name` with its pretrained weights, in eval mode.

    Parameters
    ----------
    name : str
        As its provider writes it (see :func:`transfer.backbones.registry.resolve`).
    weights : Path, optional
        The weights file; without one the store, the bundle and the hub are asked in this order.
    store : Path, optional
        Folder of ``<name>.safetensors``; by default what ``TRANSFER_WEIGHTS`` says.
    random_init : bool
        Draw the weights from `seed` instead.
    classifier : bool or "any"
        Keep the original classifier, for its probabilities; ``"any"``: whichever there is, if one is.
    image_size : int, optional
        Side of the images in pixels; by default as it was pretrained. Stages are the same at every size.

    Raises
    ------
    TransferError
        An unknown name; no weights, or weights that do not fit; no classifier where one was asked for; a size that the
        network does not take.

    Examples
    --------
    >>> backbone = load("resnet10t", random_init=True)
    >>> backbone.width, [stage.name for stage in backbone.stages]
    (512, ['stem', 'layer1', 'layer2', 'layer3', 'layer4'])
    """
    provider, name = registry.resolve(name)
    if random_init and (weights or classifier is True):
        raise TransferError(f"{name}: random weights go with neither a weights file nor the original classifier")
    found = None if random_init else sources.find(provider, name, weights, store)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = provider.build(name)
    if found is None:
        backbone = Backbone(name, network, provider.preprocessing(name))
    else:
        original = sources.fit(provider, name, network, found)
        if classifier is True and not isinstance(original, nn.Linear):
            raise TransferError(f"{name}: {found.where} has no linear classifier on pooled features")
        preprocessing = found.preprocessing or provider.preprocessing(name)
        backbone = Backbone(name, network, preprocessing, found.where, original if classifier else None)
    if image_size:
        backbone.preprocessing = _at_size(backbone, image_size)
    return backbone.eval()


def _at_size(backbone: Backbone, side: int) -> Preprocessing:
    own = backbone.preprocessing
    asked = own.at_size(side)
    try:
        stages.read(backbone.network, asked.input_size)
    except Exception as error:  # each network fails in its own way
        raise TransferError(
            f"{backbone.name} takes no images of {side} x {side} pixels, it learned on {own.input_size[1]}: "
            "try another --image-size"
        ) from error
    return asked
