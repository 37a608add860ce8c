"""Copies of a network's parameters and buffers, what differs between two of them, and a fault that changes one."""

import pytest
import torch
from torch import Tensor, nn

from transfer.model import TransferModel


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def changed_names(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return the names of the tensors that differ in any bit."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def move_a_frozen_tensor(patch: pytest.MonkeyPatch) -> None:
    """Let every pass through the trained layers change the first parameter of the backbone."""
    features = TransferModel.features

    def meddle(self: TransferModel, activation: Tensor) -> Tensor:
        with torch.no_grad():
            next(self.backbone.network.parameters()).mul_(1.0001)
        return features(self, activation)

    patch.setattr(TransferModel, "features", meddle)
