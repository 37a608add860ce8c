"""timm: every CNN with pretrained weights, each with its own preprocessing."""

import sys
from functools import cache

import timm
from timm.data import resolve_data_config
from torch import Tensor, nn

from transfer.backbones.providers.base import ClassifierLayout, Provider
from transfer.backbones.providers.cnn_families import CNN, is_cnn
from transfer.backbones.stages import BuildOnMeta
from transfer.data.images.preprocessing import Preprocessing
from transfer.runtime.compiler import defer_compiler

SPDX = {name.lower(): name for name in ("Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0")}


class TimmModels(Provider):
    """The convolutional networks of timm."""

    label = "timm"

    def names(self) -> tuple[str, ...]:
        """Return all names with pretrained weights, with their tags; an architecture's default tag comes first."""
        return _list_names()

    def knows(self, name: str) -> bool:
        """Return whether `name` is an architecture, or one of its tags."""
        architecture, dot, _ = name.partition(".")
        return architecture in _list_architectures() and (not dot or name in _list_tagged(architecture))

    def build(self, name: str) -> nn.Module:
        """Return the network without its classifier, randomly initialised."""
        return timm.create_model(name, pretrained=False, num_classes=0)

    def classifier_layout(self, name: str, network: nn.Module) -> ClassifierLayout:
        """Return where the original classifier lies in weights files for `network`."""
        classifier = _read_config(name).get("classifier") or ""
        path = classifier if isinstance(classifier, str) else classifier[0]
        keys = _list_keys(name) - frozenset(network.state_dict())
        # Some classify with more than one layer (ConvFormer, RepViT): their last layer alone is no classifier.
        return ClassifierLayout(keys, path if keys <= {f"{path}.weight", f"{path}.bias"} else "")

    def rename_keys(self, name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `state` as timm's own loader rewrites what the authors of an architecture published."""
        rewrite = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        return rewrite(state, network) if rewrite else state

    def preprocessing(self, name: str) -> Preprocessing:
        """Return timm's own record."""
        return Preprocessing.from_dict(resolve_data_config(pretrained_cfg=_read_config(name)))

    def licence(self, name: str) -> str:
        """Return what timm states, SPDX identifiers in their usual case."""
        licence = _read_config(name).get("license") or ""
        return SPDX.get(licence, licence)

    def source(self, name: str) -> str:
        """Return ``hf:organisation/model`` or the URL that timm loads `name` from; empty if it has no weights."""
        config = _read_config(name)
        hub = config.get("hf_hub_id")
        return f"hf:{hub}" if hub else config.get("url") or ""

    def download(self, name: str) -> dict[str, Tensor]:
        """Return the pretrained weights, classifier included, through timm's own downloader and its cache."""
        timm.models.set_pretrained_download_progress(sys.stderr.isatty())
        return timm.create_model(name, pretrained=True).state_dict()


@cache
def _list_keys(name: str) -> frozenset[str]:
    """Return the names of all tensors of the network with its classifier."""
    with BuildOnMeta(), defer_compiler():
        return frozenset(timm.create_model(name, pretrained=False).state_dict())


@cache
def _list_names() -> tuple[str, ...]:
    listed = set(timm.list_models(pretrained=True))
    return tuple(name for a in _list_architectures() for name in _list_tagged(a) if name in listed)


@cache
def _list_architectures() -> dict[str, None]:
    """Return every CNN architecture, with pretrained weights or without, in timm's order."""
    modules = {a: module for module in timm.list_modules() if module in CNN for a in timm.list_models(module=module)}
    return dict.fromkeys(a for a in timm.list_models() if a in modules and is_cnn(modules[a], a))


@cache
def _list_tagged(architecture: str) -> tuple[str, ...]:
    """Return the names of an architecture with its tags, the default tag first."""
    return tuple(timm.models.get_arch_pretrained_cfgs(architecture))


def _read_config(name: str) -> dict:
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config else {}
