"""torchvision: its classification CNNs with weights, as ``torchvision:squeezenet1_1`` or with a tag of the weights
enumeration, as ``torchvision:resnet50.IMAGENET1K_V1``.

The classifier is the last linear layer and the dropout right before it; what stands below stays. VGG, AlexNet and
MobileNetV3 so keep their hidden fully connected layers (their features are the penultimate ones, as in timm).
SqueezeNet classifies before it pools: its features are those of its last fire module, averaged over the image.
"""

import re
import sys
from functools import cache

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from transfer.backbones.providers.cnn_families import TORCHVISION
from transfer.backbones.stages import OnMeta
from transfer.data.images.preprocessing import Preprocessing

NAME = "torchvision"


@cache
def architectures() -> tuple[str, ...]:
    """Return every CNN architecture."""
    listed = models.list_models(module=models)
    return tuple(a for a in listed if models.get_model_builder(a).__module__.rpartition(".")[2] in TORCHVISION)


@cache
def names() -> tuple[str, ...]:
    """Return what has pretrained weights, each with its tag; an architecture's default tag comes first."""
    found = []
    for architecture in architectures():
        weights = models.get_model_weights(architecture)
        tags = dict.fromkeys([weights.DEFAULT.name, *weights.__members__])
        found += [f"{NAME}:{architecture}.{tag}" for tag in tags if tag != "DEFAULT"]
    return tuple(found)


def known(name: str) -> bool:
    """Return whether `name` is an architecture, or one of its tags."""
    return name in {n.partition(".")[0] for n in names()} or name in names()


def build(name: str) -> nn.Module:
    """Return the network without its classifier, randomly initialised."""
    network = _full(name, aux=False)
    path = _classifier(network)
    if not path:
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return network
    leaves = [p for p, module in network.named_modules() if not any(True for _ in module.children())]
    before = leaves[leaves.index(path) - 1]
    for part in (path, before) if isinstance(network.get_submodule(before), nn.Dropout) else (path,):
        parent, _, child = part.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
    return network


def spare(name: str, network: nn.Module) -> tuple[set[str], str, bool]:
    """See :meth:`transfer.backbones.registry.Provider.spare`."""
    with OnMeta():
        full = _full(name, aux=True)
    linear = _classifier(full)
    return set(full.state_dict()) - set(network.state_dict()), linear or "classifier.1", bool(linear)


def renamed(name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` with the older key names that the published DenseNet files have brought up to date."""
    older = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.")
    return {older.sub(r"\1\2.", key): tensor for key, tensor in state.items()}


def preprocessing(name: str) -> Preprocessing:
    """Return torchvision's own record, with the change of normalisation that Inception's
    published networks begin with folded in (those built here begin without).
    """
    preset = _weights(name).transforms()
    inception = bool(re.search(r":(googlenet|inception_v3)", name))
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    return Preprocessing(
        input_size=(3, crop, crop),
        mean=(0.5, 0.5, 0.5) if inception else tuple(preset.mean),
        std=(0.5, 0.5, 0.5) if inception else tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_pct=crop / resize,
    )


def source(name: str) -> str:
    """Return the address that torchvision loads `name` from."""
    return _weights(name).url


def download(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights, classifier included, through torchvision's own downloader and its cache."""
    return _weights(name).get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)


def _weights(name: str) -> WeightsEnum:
    architecture, _, tag = name.partition(":")[2].partition(".")
    return models.get_model_weights(architecture)[tag or "DEFAULT"]


def _full(name: str, aux: bool) -> nn.Module:
    architecture = name.partition(":")[2].partition(".")[0]
    options = {"aux_logits": aux, "init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    return models.get_model(architecture, **options)


def _classifier(network: nn.Module) -> str:
    """Return the path of the last linear layer, or an empty string."""
    return next((p for p, m in reversed(list(network.named_modules())) if isinstance(m, nn.Linear)), "")
