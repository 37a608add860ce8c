"""glyphnet, the backbone that comes with this package: not ImageNet-pretrained, trained on rendered letters.

Its folder holds the weights, ``glyphnet.safetensors``, and ``glyphnet.json``: preprocessing and the arguments of timm's
ResNet that it was built with.
"""

import json

from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from transfer.backbones.weight_files import BUNDLE
from transfer.data.images.preprocessing import Preprocessing
from transfer.errors import TransferError

NAME = "bundled"
RECORD = BUNDLE / f"{BUNDLE.name}.json"


def names() -> tuple[str, ...]:
    """Return the one name."""
    return (BUNDLE.name,) if RECORD.is_file() else ()


def known(name: str) -> bool:
    """Return whether `name` is the bundled backbone."""
    return name == BUNDLE.name


def build(name: str) -> nn.Module:
    """Return the network without its classifier, randomly initialised."""
    return ResNet(BasicBlock, num_classes=0, **_record()["arch"])  # type: ignore[arg-type]


def spare(name: str, network: nn.Module) -> tuple[set[str], str, bool]:
    """See :meth:`transfer.backbones.registry.Provider.spare`."""
    return {"fc.weight", "fc.bias"}, "fc", True


def renamed(name: str, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state`: it has one set of names."""
    return state


def preprocessing(name: str) -> Preprocessing:
    """Return the record beside the weights."""
    return Preprocessing.from_dict(_record())


def source(name: str) -> str:
    """Return an empty string: it is on no hub."""
    return ""


def download(name: str) -> dict[str, Tensor]:
    """Raise: it is on no hub."""
    raise _missing()


def _record() -> dict:
    if not RECORD.is_file():
        raise _missing()
    return json.loads(RECORD.read_text(encoding="utf-8"))


def _missing() -> TransferError:
    return TransferError(f"the bundled backbone is missing from this installation ({BUNDLE}): reinstall transfer")
