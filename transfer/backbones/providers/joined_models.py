"""Several networks as one backbone, named ``a+b+c``: an image passes all of them, and their features are concatenated.

Networks make different errors, so a probe on the features of all is often better than on those of any one. All see the
same picture: size, crop and interpolation are those of the network with the largest input. Each normalises it with its
own mean and standard deviation.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from transfer.backbones.backbone import Backbone
from transfer.backbones.providers.base import JOINED, ClassifierLayout, Provider
from transfer.backbones.stages import Stage
from transfer.data.images.preprocessing import Preprocessing

WEIGHTS_SEPARATOR = "; "  # between the places where their weights were found


class JoinedNetwork(nn.Module):
    """Networks side by side on one image, their pooled features concatenated.

    Parameters
    ----------
    networks : sequence of nn.Module
        Each from normalised images (N, 3, H, W) to pooled features (N, its width).

    Attributes
    ----------
    scale, shift : Tensor, shape (networks, 3, 1, 1)
        An image that is normalised for the network with the largest input, times `scale`, plus `shift`, is normalised
        for each network.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.ones(len(networks), 3, 1, 1))
        self.register_buffer("shift", torch.zeros(len(networks), 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, sum of all widths), each network's at unit root-mean-square per image."""
        features = [
            network(images * scale + shift)
            for network, scale, shift in zip(self.networks, self.scale, self.shift, strict=True)
        ]
        return torch.cat([each / each.square().mean(1, keepdim=True).sqrt().clamp_min(1e-6) for each in features], 1)


class JoinedModels(Provider):
    """The provider of all names that join others by a ``+``; `resolve` returns the provider and full name of one."""

    label = "joined"

    def __init__(self, resolve: Callable[[str], tuple[Provider, str]]) -> None:
        self._resolve = resolve

    def names(self) -> tuple[str, ...]:
        """Return no name: any networks can be joined."""
        return ()

    def knows(self, name: str) -> bool:
        """Return whether `name` names several networks."""
        return JOINED in name

    def build(self, name: str) -> nn.Module:
        """Return the networks side by side, without their classifiers, randomly initialised."""
        return JoinedNetwork([provider.build(full) for provider, full in self._resolved(name)])

    def classifier_layout(self, name: str, network: nn.Module) -> ClassifierLayout:
        """Return that there is no classifier: each network has its own, on its own features."""
        return ClassifierLayout(frozenset(), "")

    def preprocessing(self, name: str) -> Preprocessing:
        """Return the preprocessing of the network with the largest input."""
        return find_lead([provider.preprocessing(full) for provider, full in self._resolved(name)])

    def code_digest(self, name: str, network: nn.Module) -> str:
        """Return a digest over those of the networks; empty if none has one."""
        networks = network.get_submodule("networks").children()
        resolved = zip(self._resolved(name), networks, strict=True)
        digests = [provider.code_digest(full, each) for (provider, full), each in resolved]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest() if any(digests) else ""

    def _resolved(self, name: str) -> list[tuple[Provider, str]]:
        return [self._resolve(each) for each in name.split(JOINED)]


def find_lead(records: Sequence[Preprocessing]) -> Preprocessing:
    """Return the one of `records` with the largest input, the first of several."""
    return max(records, key=lambda record: record.input_size[1])


def join_backbones(name: str, members: Sequence[Backbone]) -> Backbone:
    """Return `members` as one backbone of one stage; their networks are taken over, not copied."""
    network = JoinedNetwork([member.network for member in members])
    records = [member.preprocessing for member in members]
    lead = find_lead(records)
    for i, record in enumerate(records):
        mean, std, lead_mean, lead_std = (torch.tensor(v) for v in (record.mean, record.std, lead.mean, lead.std))
        network.scale[i] = (lead_std / std).view(3, 1, 1)
        network.shift[i] = ((lead_mean - mean) / std).view(3, 1, 1)
    stage = Stage("networks", tuple(f"networks.{i}" for i in range(len(members))))
    weights = WEIGHTS_SEPARATOR.join(dict.fromkeys(member.weights for member in members))
    layout = (stage,), sum(member.width for member in members)
    joined = Backbone(name, network, lead, weights, layout=layout)
    joined.licence = ", ".join(dict.fromkeys(member.licence for member in members if member.licence))
    return joined
