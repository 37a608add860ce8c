"""Load a backbone by name: its provider builds the network, then pretrained weights are loaded into it."""

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
        See :func:`transfer.backbones.registry.resolve`.
    weights : Path, optional
        The weights file; by default the first found of: store, the provider's own file, hub.
    store : Path, optional
        Folder of ``<name>.safetensors``; by default ``TRANSFER_WEIGHTS``.
    random_init : bool
        Initialise the weights randomly from `seed` instead.
    classifier : bool or "any"
        Load the original classifier, too, for its probabilities: a linear one, or an error; ``"any"``: of any kind,
        or none.
    image_size : int, optional
        Side of the images in pixels; by default that of pretraining. The stages do not depend on it.

    Raises
    ------
    TransferError
        An unknown name; no weights, or weights that do not fit; no classifier where one is required; an image size
        that the network cannot process.

    Examples
    --------
    >>> backbone = load("resnet10t", random_init=True)
    >>> backbone.width, [stage.name for stage in backbone.stages]
    (512, ['stem', 'layer1', 'layer2', 'layer3', 'layer4'])
    """
    provider, name = registry.resolve(name)
    if random_init and (weights or classifier is True):
        raise TransferError(f"{name}: --random-init excludes a weights file and the original classifier")
    found = None if random_init else sources.find_weights(provider, name, weights, store)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = provider.build(name)
    if found is None:
        backbone = Backbone(name, network, provider.preprocessing(name))
    else:
        original = sources.load_into(provider, name, network, found)
        if classifier is True and not isinstance(original, nn.Linear):
            raise TransferError(f"{name}: {found.where} has no linear classifier on pooled features")
        preprocessing = found.preprocessing or provider.preprocessing(name)
        backbone = Backbone(name, network, preprocessing, found.where, original if classifier else None)
    backbone.code_digest = provider.code_digest(name, network)
    if image_size:
        backbone.preprocessing = _resize_input(backbone, image_size)
    return backbone.eval()


def _resize_input(backbone: Backbone, side: int) -> Preprocessing:
    resized = backbone.preprocessing.at_size(side)
    try:
        stages.read_stages(backbone.network, resized.input_size)
    except Exception as error:  # each network fails in its own way
        raise TransferError(
            f"{backbone.name} cannot process images of {side} x {side} pixels; it was pretrained on "
            f"{backbone.preprocessing.input_size[1]}: try another --image-size"
        ) from error
    return resized
