"""What a provider of backbones offers, and how the classifier lies in its weights files; imports no torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.errors import TransferError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer.data.images.preprocessing import Preprocessing


JOINED = "+"  # between the names of networks that are one backbone together


@dataclass(frozen=True)
class ClassifierLayout:
    """Where the original classifier lies in a weights file.

    It reads pooled features, or, if not `pooled`, each position of the last feature map (SqueezeNet).
    """

    keys: frozenset[str]  # of the file, that the network without its classifier does not have
    path: str  # dotted path of the classifier, if it is one linear layer (or 1 x 1 convolution); else empty
    pooled: bool = True


class Provider(ABC):
    """A source of backbones. A `name` is always the full name, as users write it.

    A subclass sets `label` and defines `names`, `knows`, `build`, `classifier_layout` and `preprocessing`; the others
    have defaults for a provider without published weights.
    """

    label: str = ""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names with pretrained weights; the default tag of an architecture comes first."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Return whether :meth:`build` takes `name`."""

    @abstractmethod
    def build(self, name: str) -> "nn.Module":
        """Return the network without its classifier, randomly initialised: images (N, 3, H, W) to (N, width)."""

    @abstractmethod
    def classifier_layout(self, name: str, network: "nn.Module") -> ClassifierLayout:
        """Return where the original classifier lies in weights files for `network`."""

    @abstractmethod
    def preprocessing(self, name: str) -> "Preprocessing":
        """Return the provider's record of the preprocessing that the weights were trained with."""

    def rename_keys(self, name: str, network: "nn.Module", state: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return weights with published key names changed to those of the network."""
        return state

    def licence(self, name: str) -> str:
        """Return the licence of the pretrained weights, as its SPDX identifier where it has one; empty: not stated."""
        return ""

    def local_file(self, name: str) -> Path | None:
        """Return the weights file that comes with the provider."""
        return None

    def source(self, name: str) -> str:
        """Return where the hub has the weights, as ``hf:organisation/model`` or a URL; empty: on no hub."""
        return ""

    def download(self, name: str) -> "dict[str, Tensor]":
        """Return the weights from the hub, classifier included."""
        raise TransferError(f"{name} has no published weights: give --weights FILE, or --random-init")

    def code_digest(self, name: str, network: "nn.Module") -> str:
        """Return a digest of the code that computes the features, where the package versions do not cover it."""
        return ""
