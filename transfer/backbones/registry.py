"""Names -> builders: which provider knows a name, and what it would be called if none does."""

from functools import cache
from typing import Protocol, cast

import timm
from torch import Tensor, nn

from transfer.backbones.providers import bundled_models, timm_models, torchvision_models
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError, did_you_mean


class Provider(Protocol):
    """What a provider's module offers; `name` is a full name as users write it."""

    NAME: str

    def names(self) -> tuple[str, ...]:
        """Return what it has pretrained weights for; the default tag of an architecture comes first."""

    def known(self, name: str) -> bool:
        """Return whether it can build `name`."""

    def build(self, name: str) -> nn.Module:
        """Return the network without its classifier, randomly initialised."""

    def spare(self, name: str, network: nn.Module) -> tuple[set[str], str, bool]:
        """Return a weights file's keys beyond `network`, the path of the classifier, if it is one layer, and whether
        that stands behind the pooling.
        """

    def renamed(self, name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights with published key names brought to those of the network."""

    def preprocessing(self, name: str) -> Preprocessing:
        """Return its own record of what the weights were trained with."""

    def source(self, name: str) -> str:
        """Return where the hub has the weights, or an empty string."""

    def download(self, name: str) -> dict[str, Tensor]:
        """Return the hub's weights."""


PROVIDERS = cast(tuple[Provider, ...], (timm_models, torchvision_models, bundled_models))


@cache
def names() -> tuple[str, ...]:
    """Return every name that can be loaded with pretrained weights, by provider, with tags."""
    return tuple(name for provider in PROVIDERS for name in provider.names())


def resolve(name: str) -> tuple[Provider, str]:
    """Return the provider of a backbone, and its name in full.

    Parameters
    ----------
    name : str
        ``mobilenetv2_100``, ``resnet50.a1_in1k``, ``torchvision:squeezenet1_1``, ``glyphnet``; timm's may have
        ``timm:`` in front.

    Raises
    ------
    TransferError
        No provider has it; says what it may have meant.
    """
    name = name.strip().removeprefix("timm:")
    for provider in PROVIDERS:
        if provider.known(name):
            return provider, name
    known = {n for full in names() for n in (full, full.partition(".")[0])}
    for prefix in ("torchvision:", ""):  # the same name with its provider or without is the likeliest meaning
        if (meant := prefix + name.rpartition(":")[2]) in known:
            raise TransferError(f"unknown backbone {name!r} (did you mean {meant!r}?)")
    architecture, dot, _ = name.partition(".")
    if timm.is_model(architecture) and not timm_models.known(architecture):
        raise TransferError(f"{name!r} is not a convolutional network: `transfer backbones '*'` lists those that are")
    candidates = {n for n in known if n.startswith(f"{architecture}.")} if dot else set()
    candidates = candidates or {n for n in known if "." not in n}
    near = did_you_mean(name, sorted(n for n in candidates if n.startswith(name)) or sorted(candidates))
    raise TransferError(f"unknown backbone {name!r}{near}: `transfer backbones '*'` lists all")
