"""Copies of a network's parameters and buffers, and what differs between two of them."""

import torch
from torch import Tensor, nn


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def changed_names(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return the names of the tensors that differ in any bit."""
    return {name for name in before if not torch.equal(before[name], after[name])}
