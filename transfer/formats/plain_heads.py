"""Heads as plain linear layers on pooled features: feature scaling and units of targets are folded into them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfer.heads.dropout import VanillaDropout
from transfer.heads.heads import Heads


@dataclass(frozen=True)
class PlainHead:
    """A sequence of linear layers with an activation in between."""

    layers: list[tuple[Tensor, Tensor]]  # weight (outputs, inputs) and bias (outputs,) of each
    activation: str = ""  # name of the torch.nn module between them; empty if there is one layer


def extract_plain_heads(heads: Heads) -> dict[str, PlainHead]:
    """Return each of `heads` by name; ``"joint"`` is a joint head, whose logits are ordered by domain, then object.

    Their outputs are logits, or values in their own unit for regression heads.
    """
    names = [name for name in heads.specs if not (heads.joint and name in ("object", "domain"))]
    with torch.no_grad():
        return {name: _plain(heads, name) for name in (["joint"] if heads.joint else []) + names}


def _plain(heads: Heads, name: str) -> PlainHead:
    layers: list[tuple[Tensor, Tensor]] = []
    activation, scale = "", 1.0
    for module in heads.layer(name).children():
        if isinstance(module, VanillaDropout):
            scale = 1 - module.p  # at inference it scales the next layer's input
        elif isinstance(module, nn.Linear):
            weight, bias = module.weight * scale, module.bias.clone()
            if not layers:
                weight = weight / heads.spread
                bias -= weight @ heads.centre
            layers.append((weight.cpu(), bias.cpu()))
            scale = 1.0
        elif not isinstance(module, nn.Dropout):
            activation = type(module).__name__
    spec = heads.specs.get(name)
    if spec:
        layers[-1] = spec.head_kind.fold_unit(spec, *layers[-1])
    return PlainHead(layers, activation)
