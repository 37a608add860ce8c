"""glyphnet, the backbone that comes with this package: not ImageNet-pretrained, trained on rendered letters.

Its folder holds the weights, ``glyphnet.safetensors``, and ``glyphnet.json``: preprocessing and the arguments of timm's
ResNet that it was built with.
"""

import json
from pathlib import Path

from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from transfer.backbones.providers.base import ClassifierLayout, Provider
from transfer.backbones.weight_paths import BUNDLE, find_bundled_file
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError

RECORD = BUNDLE / f"{BUNDLE.name}.json"


class BundledModels(Provider):
    """The backbone that comes with this package."""

    label = "bundled"

    def names(self) -> tuple[str, ...]:
        """Return its name, if this installation has it."""
        return (BUNDLE.name,) if RECORD.is_file() else ()

    def knows(self, name: str) -> bool:
        """Return whether `name` is the bundled backbone."""
        return name == BUNDLE.name

    def build(self, name: str) -> nn.Module:
        """Return the network without its classifier, randomly initialised."""
        return ResNet(BasicBlock, num_classes=0, **_read_record()["arch"])  # type: ignore[arg-type]

    def classifier_layout(self, name: str, network: nn.Module) -> ClassifierLayout:
        """Return where the original classifier lies in the weights file."""
        return ClassifierLayout(frozenset(("fc.weight", "fc.bias")), "fc")

    def preprocessing(self, name: str) -> Preprocessing:
        """Return the record beside the weights."""
        return Preprocessing.from_dict(_read_record())

    def licence(self, name: str) -> str:
        """Return the licence of this package."""
        return "MIT"

    def local_file(self, name: str) -> Path | None:
        """Return its weights file."""
        return find_bundled_file(name)

    def download(self, name: str) -> dict[str, Tensor]:
        """Raise: it is on no hub."""
        raise _missing()


def _read_record() -> dict:
    if not RECORD.is_file():
        raise _missing()
    return json.loads(RECORD.read_text(encoding="utf-8"))


def _missing() -> TransferError:
    return TransferError(f"the bundled backbone is missing from this installation ({BUNDLE}): reinstall transfer")
