"""Find the provider of a backbone by its name; register backbones of your own.

Importing this module imports neither torch nor timm.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.backbones.providers.base import JOINED, ClassifierLayout, Provider
from transfer.errors import TransferError, UnknownName, did_you_mean
from transfer.runtime.compiler import defer_compiler
from transfer.runtime.imports import pause_collection

if TYPE_CHECKING:
    from torch import nn

    from transfer.data.images.preprocessing import Preprocessing

BACKBONES: dict[str, "RegisteredBackbone"] = {}
"""Backbones that users registered, by name."""
_source_digests: dict[str, str] = {}  # by file, as first read
LIBRARIES = ("torch", "torchvision", "timm")  # packages whose code is not part of a code digest


@dataclass(frozen=True)
class RegisteredBackbone:
    """A backbone that a user registered: see :func:`register_backbone`."""

    build: "Callable[[], nn.Module]"
    preprocessing: "Preprocessing | Mapping[str, Any]"
    weights: Path | None = None
    classifier: str = ""
    summary: str = ""


def register_backbone(
    name: str,
    build: "Callable[[], nn.Module]",
    preprocessing: "Preprocessing | Mapping[str, Any]",
    *,
    weights: Path | str | None = None,
    classifier: str = "",
    summary: str = "",
) -> None:
    """Register a convolutional network under a name for ``--backbone`` and :func:`transfer.load`.

    A saved run of this backbone loads only in a process that has registered it: on the command line, give ``--plugin``
    again.

    Parameters
    ----------
    name : str
        Letters, digits, ``_``, ``-``; no name of timm or torchvision.
    build : callable
        Takes no arguments and returns an nn.Module without classifier, from normalised images (N, 3, H, W) to pooled
        features (N, width). It initialises weights from torch's global random generator. Each Sequential of blocks,
        such as ``layer1``, becomes a stage (all rules: :mod:`transfer.backbones.stages`). Features are cached at the
        end of a stage if a single tensor passes from there to the rest.
    preprocessing : Preprocessing or mapping
        The preprocessing that the weights were trained with. A ``.json`` beside the weights file takes precedence.
    weights : path, optional
        The weights file, .safetensors or .pt. Without it: ``--weights``, a file of this name in the store, or
        ``--random-init``.
    classifier : str
        Dotted path of the original classifier in the weights file, if it has one: a linear layer on the pooled
        features, which the network of `build` does not have.
    summary : str
        One line that describes it.

    Raises
    ------
    TransferError
        An invalid name, or one that is taken.

    Examples
    --------
    >>> from torch import nn
    >>> def build():
    ...     return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> record = {"input_size": [3, 32, 32], "interpolation": "bilinear", "crop_pct": 1.0}
    >>> register_backbone("doctest_net", build, record | {"mean": [0.5] * 3, "std": [0.5] * 3})
    >>> resolve("doctest_net")[0].preprocessing("doctest_net").input_size
    (3, 32, 32)
    >>> del BACKBONES["doctest_net"]
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise TransferError(f"backbone name {name!r}: letters, digits, '_' and '-' are allowed")
    known = BACKBONES.get(name)
    if known is not None and _identify(known.build) != _identify(build):
        raise TransferError(f"backbone {name!r} is registered already, by {'.'.join(_identify(known.build))}")
    file = Path(weights).expanduser() if weights else None
    if source := _find_source(build):
        _source_digests[source] = _digest_file(source)  # now: the file may be edited while this process runs
    BACKBONES[name] = RegisteredBackbone(build, preprocessing, file, classifier, summary)


class RegisteredBackbones(Provider):
    """The provider of all registered backbones."""

    label = "registered"

    def names(self) -> tuple[str, ...]:
        """Return all registered names."""
        return tuple(BACKBONES)

    def knows(self, name: str) -> bool:
        """Return whether `name` is registered."""
        return name in BACKBONES

    def build(self, name: str) -> "nn.Module":
        """Return the network without its classifier, randomly initialised."""
        return BACKBONES[name].build()

    def classifier_layout(self, name: str, network: "nn.Module") -> ClassifierLayout:
        """Return the layout that was registered."""
        path = BACKBONES[name].classifier
        return ClassifierLayout(frozenset((f"{path}.weight", f"{path}.bias") if path else ()), path)

    def preprocessing(self, name: str) -> "Preprocessing":
        """Return the preprocessing that was registered."""
        from transfer.data.images.preprocessing import Preprocessing

        record = BACKBONES[name].preprocessing
        return record if isinstance(record, Preprocessing) else Preprocessing.from_dict(dict(record))

    def local_file(self, name: str) -> Path | None:
        """Return the weights file that was registered."""
        return BACKBONES[name].weights

    def code_digest(self, name: str, network: "nn.Module") -> str:
        """Return a digest over the structure of `network` and the source files of its builder and its classes."""
        structure = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
        digest = hashlib.sha256(structure.encode())
        sources = {_find_source(BACKBONES[name].build), *(_find_source(type(m)) for m in network.modules())}
        for file in sorted(filter(None, sources)):
            digest.update(_source_digests.setdefault(file, _digest_file(file)).encode())
        return digest.hexdigest()


@cache
def load_providers() -> tuple[Provider, ...]:
    """Return all providers; a name belongs to the first that knows it."""
    with defer_compiler(), pause_collection():
        from transfer.backbones.providers.bundled_models import BundledModels
        from transfer.backbones.providers.joined_models import JoinedModels
        from transfer.backbones.providers.timm_models import TimmModels
        from transfer.backbones.providers.torchvision_models import TorchvisionModels

    return JoinedModels(resolve), TimmModels(), TorchvisionModels(), BundledModels(), RegisteredBackbones()


def list_names() -> tuple[str, ...]:
    """Return every name that can be loaded with pretrained weights, by provider, with tags; registered names too."""
    return tuple(name for provider in load_providers() for name in provider.names())


def resolve(name: str) -> tuple[Provider, str]:
    """Return the provider of a backbone, and its full name.

    Parameters
    ----------
    name : str
        ``mobilenetv2_100``, ``resnet50.a1_in1k``, ``torchvision:squeezenet1_1``, ``glyphnet``, or a registered name;
        timm's may have ``timm:`` in front, or ``timm/`` or ``hf-hub:timm/``, as its hub writes them. Several names
        joined by ``+`` are one backbone.

    Raises
    ------
    TransferError
        No provider knows it; the message suggests similar names. Or a registered name that another provider has.
    """
    if JOINED in name:
        name = JOINED.join(split_joined(name))
    name = re.sub(r"^(timm:|(hf[-_]hub:)?timm/)", "", name.strip())
    if not (found := _find_providers(name)):
        from transfer.runtime.plugins import load_entry_points

        load_entry_points()
        found = _find_providers(name)
    if len(found) > 1:
        raise TransferError(f"backbone {name!r} is registered, and {found[0].label} has it, too: register another name")
    if found:
        return found[0], name
    raise UnknownName(_explain_unknown(name))


def split_joined(name: str) -> tuple[str, ...]:
    """Return the full names of the networks of a backbone such as ``a+b+c``; of any other, its own.

    Raises
    ------
    TransferError
        No provider knows one of them, or one is named twice.
    """
    names = tuple(resolve(part)[1] for part in name.split(JOINED))
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise TransferError(f"backbone {name!r} names {twice} twice: join different networks")
    return names


def _find_providers(name: str) -> list[Provider]:
    return [provider for provider in load_providers() if provider.knows(name)]


def _explain_unknown(name: str) -> str:
    """Return the error for a name that no provider knows."""
    import timm

    known = {n for full in list_names() for n in (full, full.partition(".")[0])}
    for prefix in ("torchvision:", ""):  # the same name with its provider or without is the likeliest meaning
        if (meant := prefix + name.rpartition(":")[2]) in known:
            return f"unknown backbone {name!r} (did you mean {meant!r}?)"
    architecture, dot, _ = name.partition(".")
    if timm.is_model(architecture) and not _find_providers(architecture):
        return f"{name!r} is not a convolutional network: `transfer backbones '*'` lists those that are"
    candidates = {n for n in known if n.startswith(f"{architecture}.")} if dot else set()
    candidates = candidates or {n for n in known if "." not in n}
    near = did_you_mean(name, sorted(n for n in candidates if n.startswith(name)) or sorted(candidates))
    return (
        f"unknown backbone {name!r}{near}: `transfer backbones '*'` lists all; for one of a plugin, give --plugin "
        "MODULE"
    )


def _identify(build: Any) -> tuple[str, str]:
    return str(getattr(build, "__module__", "")), str(getattr(build, "__qualname__", repr(build)))


def _find_source(code: Any) -> str:
    """Return the source file of a function or class; empty: no file, or one of ``LIBRARIES``."""
    if str(getattr(code, "__module__", "")).partition(".")[0] in LIBRARIES:
        return ""
    try:
        file = inspect.getsourcefile(code) or ""
    except (TypeError, OSError):  # built in, a callable object, or typed into an interpreter
        return ""
    return file if Path(file).is_file() else ""


def _digest_file(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
