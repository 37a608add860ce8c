"""torchvision: its classification CNNs with weights, as ``torchvision:squeezenet1_1`` or with a tag of the weights
enumeration, as ``torchvision:resnet50.IMAGENET1K_V1``.

The classifier is the last linear layer and the dropout right before it; the layers below stay. So VGG, AlexNet and
MobileNetV3 keep their hidden fully connected layers (their features are the penultimate ones, as in timm). SqueezeNet
classifies before it pools: its features are those of its last fire module, averaged over the image.
"""

import re
import sys
from functools import cache

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from transfer.backbones.providers.base import ClassifierLayout, Provider
from transfer.backbones.providers.cnn_families import TORCHVISION
from transfer.backbones.stages import BuildOnMeta
from transfer.data.images.preprocessing import Preprocessing
from transfer.runtime.compiler import defer_compiler

PREFIX = "torchvision:"


class TorchvisionModels(Provider):
    """The convolutional networks of torchvision."""

    label = "torchvision"

    def names(self) -> tuple[str, ...]:
        """Return all names with pretrained weights, with their tags; an architecture's default tag comes first."""
        return _list_names()

    def knows(self, name: str) -> bool:
        """Return whether `name` is an architecture, or one of its tags."""
        return name in {known.partition(".")[0] for known in _list_names()} or name in _list_names()

    def build(self, name: str) -> nn.Module:
        """Return the network without its classifier, randomly initialised."""
        network = _build_with_classifier(name, aux=False)
        path = _find_last_linear(network)
        if not path:
            network.classifier = nn.AdaptiveAvgPool2d(1)
            return network
        leaves = [p for p, module in network.named_modules() if not any(True for _ in module.children())]
        before = leaves[leaves.index(path) - 1]
        for part in (path, before) if isinstance(network.get_submodule(before), nn.Dropout) else (path,):
            parent, _, child = part.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
        return network

    def classifier_layout(self, name: str, network: nn.Module) -> ClassifierLayout:
        """Return where the original classifier lies in weights files for `network`."""
        with BuildOnMeta(), defer_compiler():
            full = _build_with_classifier(name, aux=True)
        linear = _find_last_linear(full)
        keys = frozenset(full.state_dict()) - frozenset(network.state_dict())
        return ClassifierLayout(keys, linear or "classifier.1", bool(linear))

    def rename_keys(self, name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `state` with the older key names of the published DenseNet files brought up to date."""
        older = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)\.")
        return {older.sub(r"\1\2.", key): tensor for key, tensor in state.items()}

    def preprocessing(self, name: str) -> Preprocessing:
        """Return torchvision's own record.

        Published Inception networks begin with a change of normalisation; the networks built here do not, so that the
        record includes it.
        """
        preset = _read_weights(name).transforms()
        inception = bool(re.search(r":(googlenet|inception_v3)", name))
        crop, resize = preset.crop_size[0], preset.resize_size[0]
        return Preprocessing(
            input_size=(3, crop, crop),
            mean=(0.5, 0.5, 0.5) if inception else tuple(preset.mean),
            std=(0.5, 0.5, 0.5) if inception else tuple(preset.std),
            interpolation=preset.interpolation.value,
            crop_pct=crop / resize,
        )

    def licence(self, name: str) -> str:
        """Return what torchvision states, which it does for few."""
        return _read_weights(name).meta.get("license", "")

    def source(self, name: str) -> str:
        """Return the URL that torchvision loads `name` from."""
        return _read_weights(name).url

    def download(self, name: str) -> dict[str, Tensor]:
        """Return the pretrained weights, classifier included, through torchvision's own downloader and its cache."""
        return _read_weights(name).get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)


@cache
def _list_names() -> tuple[str, ...]:
    listed = models.list_models(module=models)
    architectures = [a for a in listed if models.get_model_builder(a).__module__.rpartition(".")[2] in TORCHVISION]
    names = []
    for architecture in architectures:
        weights = models.get_model_weights(architecture)
        tags = dict.fromkeys([weights.DEFAULT.name, *weights.__members__])
        names += [f"{PREFIX}{architecture}.{tag}" for tag in tags if tag != "DEFAULT"]
    return tuple(names)


def _read_weights(name: str) -> WeightsEnum:
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    return models.get_model_weights(architecture)[tag or "DEFAULT"]


def _build_with_classifier(name: str, aux: bool) -> nn.Module:
    architecture = name.removeprefix(PREFIX).partition(".")[0]
    options = {"aux_logits": aux, "init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    return models.get_model(architecture, **options)


def _find_last_linear(network: nn.Module) -> str:
    """Return the path of the last linear layer, or an empty string."""
    return next((p for p, m in reversed(list(network.named_modules())) if isinstance(m, nn.Linear)), "")
