"""timm: every CNN with pretrained weights, each with its own preprocessing."""

import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.models import _builder, _registry
from torch import Tensor, nn

from transfer.backbones.providers.cnn_families import is_cnn
from transfer.backbones.stages import OnMeta
from transfer.data.images.preprocessing import Preprocessing

NAME = "timm"


@cache
def architectures() -> tuple[str, ...]:
    """Return every CNN architecture, with pretrained weights or without."""
    return tuple(a for a in timm.list_models() if is_cnn(_registry._model_to_module[a], a))


@cache
def names() -> tuple[str, ...]:
    """Return what has pretrained weights, each with its tag; an architecture's default tag comes first."""
    listed = set(timm.list_models(pretrained=True))
    tagged = ((a, tag) for a in architectures() for tag in _tags(a))
    return tuple(name for a, tag in tagged if (name := f"{a}.{tag}" if tag else a) in listed)


def known(name: str) -> bool:
    """Return whether `name` is an architecture, or one of its tags."""
    architecture, _, tag = name.partition(".")
    return architecture in set(architectures()) and (not tag or tag in _tags(architecture))


def build(name: str) -> nn.Module:
    """Return the network without its classifier, randomly initialised."""
    return timm.create_model(name, pretrained=False, num_classes=0)


def spare(name: str, network: nn.Module) -> tuple[set[str], str, bool]:
    """See :meth:`transfer.backbones.registry.Provider.spare`."""
    with OnMeta():
        full = timm.create_model(name, pretrained=False)
    classifier = _config(name).get("classifier") or ""
    path = classifier if isinstance(classifier, str) else classifier[0]
    keys = set(full.state_dict()) - set(network.state_dict())
    # Some classify by more than one layer (ConvFormer, RepViT): their last layer alone is no classifier.
    return keys, path if keys <= {f"{path}.weight", f"{path}.bias"} else "", True


def renamed(name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` as timm's own loader rewrites what the authors of an architecture published."""
    rewrite = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    return rewrite(state, network) if rewrite else state


def preprocessing(name: str) -> Preprocessing:
    """Return timm's own record."""
    return Preprocessing.from_dict(resolve_data_config(pretrained_cfg=_config(name)))


def source(name: str) -> str:
    """Return ``hf:organisation/model`` or the address that timm loads `name` from; empty if it has no weights."""
    kind, location = _builder._resolve_pretrained_source(_config(name))
    if kind == "hf-hub":
        return f"hf:{location if isinstance(location, str) else location[0]}"
    return location if kind == "url" else ""


def download(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights, classifier included, through timm's own downloader and its cache."""
    timm.models.set_pretrained_download_progress(sys.stderr.isatty())
    return timm.create_model(name, pretrained=True).state_dict()


def _tags(architecture: str) -> Sequence[str]:
    config: Any = _registry._model_default_cfgs.get(architecture)  # timm 1.0.15 has architectures without one
    return config.tags if config else ()


def _config(name: str) -> dict:
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config else {}
